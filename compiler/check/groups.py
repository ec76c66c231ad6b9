"""Do the ranks fit together: coordinates, groups, neighbours, and the slices of every weight."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from moec.compiler.check.faults import Fault
from moec.compiler.check.headers import Header
from moec.compiler.check.terms import Site
from moec.dsl.mesh import Mesh
from moec.runtime.place import Place
from moec.runtime.shard import Weight, check_stated


def check_ranks(mesh: Mesh, headers: Sequence[Header], files: Sequence[str]) -> Iterator[Fault]:
    """Every rank is at its own coordinates, and all members of a group say the same of it."""
    stated: dict[tuple[str, tuple[int, ...]], int] = {}
    seen: dict[tuple[int, ...], int] = {}
    for number, (header, file) in enumerate(zip(headers, files, strict=True)):
        site = Site(file, 1)
        true = {axis: place for axis, place in mesh.coordinates(number).items() if axis in header.coordinates}
        if header.rank != number or dict(header.coordinates) != true:
            yield Fault(
                "groups", f"rank {number} says that it is rank {header.rank} at {dict(header.coordinates)}", site
            )
        first = seen.setdefault(tuple(header.coordinates.values()), number)
        if first != number:
            yield Fault("groups", f"ranks {first} and {number} are both at {dict(header.coordinates)}", site)
        for name, ranks in header.groups.items():
            if number not in ranks:
                yield Fault("groups", f"rank {number} is not in its own group `{name}`, {ranks}", site)
            stated[name, ranks] = stated.get((name, ranks), 0) + 1
        yield from _neighbours(header, headers, site)
    for (name, ranks), count in stated.items():
        others = (
            [rank for rank in ranks if headers[rank].groups.get(name) != ranks] if max(ranks) < len(headers) else []
        )
        if count != len(ranks) or others:
            who = f"rank {others[0]} says otherwise" if others else f"{count} ranks say so"
            yield Fault("groups", f"group `{name}` has the ranks {ranks}, but {who}", Site(files[ranks[0]], 1))


def _neighbours(header: Header, headers: Sequence[Header], site: Site) -> Iterator[Fault]:
    for other, back, step in ((header.previous, "following", -1), (header.following, "previous", 1)):
        if other is None:
            continue
        there = headers[other] if other < len(headers) else None
        if there is None or getattr(there, back) != header.rank or there.stage != header.stage + step:
            yield Fault(
                "groups", f"rank {header.rank} has rank {other} beside it, which has another beside itself", site
            )


def varied_axes(mesh: Mesh, ranks: Sequence[int]) -> frozenset[str] | None:
    """The axes over which a group goes: those on which its ranks differ, if it has every combination once."""
    places = [mesh.coordinates(rank) for rank in ranks]
    axes = [axis for axis in places[0] if len({place[axis] for place in places}) > 1]
    whole = prod(len({place[axis] for place in places}) for axis in axes)
    return frozenset(axes) if whole == len(ranks) == len(set(ranks)) else None


def check_slices(
    headers: Sequence[Header], files: Sequence[str], tables: Mapping[int, Mapping[str, Mapping[str, Weight]]]
) -> Iterator[Fault]:
    """Every rank states the slices that follow from its coordinates. They tile a weight: equal blocks, one a place."""
    known: set[tuple[object, ...]] = set()
    for header, file in zip(headers, files, strict=True):
        weights = tables[header.stage]
        split = {
            axis for table in weights.values() for weight in table.values() for axes in weight.split for axis in axes
        }
        key = header.stage, tuple([header.coordinates[axis] for axis in sorted(split)]), id(header.slices)
        if key in known:
            continue
        known.add(key)
        place = Place(header.rank, header.axes, header.coordinates, {}, header.previous, header.following)
        try:
            check_stated(header.slices, weights, place)
        except (ValueError, KeyError) as fault:
            yield Fault("slices", str(fault), Site(file, 1))
        for kind, table in weights.items():
            split = {key for key, weight in table.items() if any(weight.split)}
            missing = split - set(header.slices.get(kind, {}))
            if missing:
                yield Fault(
                    "slices", f"rank {header.rank} does not state its slice of {kind}.{min(missing)}", Site(file, 1)
                )

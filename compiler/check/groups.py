"""Do the ranks fit together: coordinates, groups, neighbours, and the slices of every weight."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from moec.compiler.check.faults import Fault
from moec.compiler.check.headers import Header
from moec.compiler.placement import Axes
from moec.dsl.mesh import Mesh
from moec.runtime.place import Place
from moec.runtime.shard import Weight, check_stated


def check_ranks(mesh: Mesh, headers: Sequence[Header], orders: Mapping[str, Axes]) -> Iterator[Fault]:
    """Every rank is at its own coordinates, and all members of a group say the same of it.

    `orders` are the axes that a group goes along, major first.
    """
    stated: dict[tuple[str, tuple[int, ...]], list[int]] = {}
    for number, header in enumerate(headers):
        true = {axis: place for axis, place in mesh.coordinates(number).items() if axis in header.coordinates}
        if header.rank != number or dict(header.coordinates) != true:
            message = f"rank {number} says that it is rank {header.rank} at {dict(header.coordinates)}"
            yield Fault("groups", message, header.site("COORDINATES" if header.rank == number else "RANK"))
        for name, ranks in header.groups.items():
            if number not in ranks:
                yield Fault("groups", f"rank {number} is not in its own group `{name}`", header.site(f'    "{name}": '))
            stated.setdefault((name, ranks), []).append(number)
        yield from _neighbours(header, headers)
    alone = {key: who for key, who in stated.items() if len(who) != len(key[1])}
    for (name, ranks), who in sorted(alone.items(), key=lambda item: len(item[1])):
        message = f"group `{name}` has the ranks {ranks}, say {len(who)} of them, and others say otherwise"
        yield Fault("groups", message, headers[who[0]].site(f'    "{name}": '))
    for (name, ranks), who in stated.items():
        axes = orders.get(name)
        if axes is not None and ranks != mesh.group(ranks[0], axes):
            message = f"group `{name}` has the ranks {ranks}, which are not those along its axes, in order"
            yield Fault("groups", message, headers[who[0]].site(f'    "{name}": '))


def _neighbours(header: Header, headers: Sequence[Header]) -> Iterator[Fault]:
    for other, back, step in ((header.previous, "following", -1), (header.following, "previous", 1)):
        if other is None:
            continue
        there = headers[other] if other < len(headers) else None
        if there is None or getattr(there, back) != header.rank or there.stage != header.stage + step:
            message = f"rank {header.rank} has rank {other} beside it, which has another beside itself"
            yield Fault("groups", message, header.site("PREVIOUS, NEXT"))


def varied_axes(mesh: Mesh, ranks: Sequence[int]) -> frozenset[str] | None:
    """The axes over which a group goes: those on which its ranks differ, if it has every combination once."""
    places = [mesh.coordinates(rank) for rank in ranks]
    axes = [axis for axis in places[0] if len({place[axis] for place in places}) > 1]
    whole = prod(len({place[axis] for place in places}) for axis in axes)
    return frozenset(axes) if whole == len(ranks) == len(set(ranks)) else None


def check_slices(
    headers: Sequence[Header], tables: Mapping[int, Mapping[str, Mapping[str, Weight]]]
) -> Iterator[Fault]:
    """Every rank states the slices that follow from its coordinates. They tile a weight: equal blocks, one a place."""
    known: set[tuple[object, ...]] = set()
    for header in headers:
        weights = tables[header.stage]
        split = {axis for table in weights.values() for weight in table.values() for axis in weight.axes}
        key = header.stage, tuple([header.coordinates[axis] for axis in sorted(split)]), id(header.slices)
        if key in known:
            continue
        known.add(key)
        place = Place(header.rank, header.axes, header.coordinates, {}, header.previous, header.following)
        for kind, table in weights.items():
            stated = header.slices.get(kind, {})
            for name in sorted({name for name, weight in table.items() if weight.axes} - set(stated)):
                yield Fault(
                    "slices", f"rank {header.rank} does not state its slice of {kind}.{name}", header.site("SLICES")
                )
            for name, text in stated.items():
                try:
                    check_stated({kind: {name: text}}, weights, place)
                except (ValueError, KeyError) as fault:
                    yield Fault("slices", str(fault), header.site(f'        "{name}": '))

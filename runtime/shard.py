"""A weight of the model, and the part of it that one rank has."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from moec.runtime.place import Axes, Place

Where = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight of one kind of unit, as the stage's table states it."""

    name: str  # below the path of the unit's instance
    shape: tuple[int, ...]  # of the whole
    split: tuple[Axes, ...]  # the axes over which each dim goes, major first
    reduce: str  # the group over which its gradient is summed, or ""
    init: str
    pad: tuple[int, ...] | None = None  # what is added to each dim so that it splits; by default as little as does
    decay: bool | tuple[str, ...] = True  # or the paths of the instances in which it decays
    trainable: bool = True
    dtype: torch.dtype | None = None  # of a buffer; by default that of the weights

    @property
    def axes(self) -> frozenset[str]:
        """Those that split it."""
        return frozenset([axis for axes in self.split for axis in axes])


@dataclass(frozen=True, slots=True)
class Shard:
    """This rank's part of one weight of the model."""

    name: str
    weight: Weight
    where: Where  # of the padded whole
    value: Tensor

    @property
    def inside(self) -> Where:
        """The part of the shard that is not padding, in its own coordinates."""
        sizes = zip(self.where, self.weight.shape, strict=True)
        return tuple([slice(0, max(0, min(part.stop, size) - part.start)) for part, size in sizes])

    @property
    def kept(self) -> Where:
        """The part of the whole that the shard has, without padding."""
        pairs = zip(self.where, self.inside, strict=True)
        return tuple([slice(part.start, part.start + inside.stop) for part, inside in pairs])

    @property
    def padded(self) -> bool:
        return any(part.stop > size for part, size in zip(self.where, self.weight.shape, strict=True))


def where_of(weight: Weight, place: Place) -> Where:
    """This rank's slice of the weight, padded so that it splits."""
    parts = []
    for dim, (size, axes) in enumerate(zip(weight.shape, weight.split, strict=True)):
        if weight.pad is not None:
            size += weight.pad[dim]
        else:
            size += -size % place.count(axes)
        parts.append(place.part(size, axes))
    return tuple(parts)


def is_owner(weight: Weight, place: Place) -> bool:
    """Is this the one copy that counts: first on every axis that does not split it, and on the first of its stages?"""
    along = [axis for axis in place.axes if axis not in weight.axes and axis != place.pipeline]
    first = place.rank == place.groups[weight.reduce][0] if weight.reduce else True
    return first and all(place.coordinates[axis] == 0 for axis in along)


def check_stated(
    stated: Mapping[str, Mapping[str, str]], tables: Mapping[str, Mapping[str, Weight]], place: Place
) -> None:
    """The slices that the rank's file states, for its reader, are those that its coordinates give."""
    for kind, slices in stated.items():
        for key, text in slices.items():
            weight = tables[kind][key]
            given = [_clipped(part, size) for part, size in zip(where_of(weight, place), weight.shape, strict=True)]
            if _parsed(text, weight.shape) != given:
                shown = ", ".join(f"{start}:{stop}" for start, stop in given)
                raise ValueError(
                    f"rank {place.rank} states that {kind}.{key} is {text}, its coordinates give [{shown}]"
                )


def _parsed(text: str, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """`[10:20, :] of [20, 20]`, in which `:` is the whole dim."""
    parts = [part.strip().partition(":") for part in text.partition("]")[0].lstrip("[").split(",")]
    bounds = [(int(start or 0), int(stop or size)) for (start, _, stop), size in zip(parts, shape, strict=True)]
    return [_clipped(slice(*bound), size) for bound, size in zip(bounds, shape, strict=True)]


def _clipped(part: slice, size: int) -> tuple[int, int]:
    """Without padding, which a statement may or may not count."""
    return min(part.start, size), min(part.stop, size)

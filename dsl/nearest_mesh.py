"""Finds the meshes nearest to one that cannot be, and offers those with which the whole plan can be read."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice, product
from operator import attrgetter

from moec.dsl.diagnostics import PlanError
from moec.dsl.mesh import Axis, Mesh, MeshFault
from moec.dsl.tilings import divisors

MISFITS = ("E209", "E210")
"""Codes of folds that do not fit."""

_OFFERED = 3
_SIZES = 40
"""That are tried of an axis, those nearest to what it has."""

_AXES = 6
"""Of folds and of what they fold over, that are changed."""

_LETTERS = 200_000
"""Of plans that are read in search of meshes, at most: 200 times one of 1,000 letters."""


@dataclass(frozen=True, slots=True)
class _Offer:
    """Axes with other sizes."""

    changed: tuple[Axis, ...]
    world: int
    same_world: bool
    ratio: float
    """How far the sizes are from what they were: the sum of the logarithms of new over old, without their signs."""

    @property
    def rank(self) -> tuple[int, bool, float]:
        return len(self.changed), not self.same_world, self.ratio

    @property
    def sets(self) -> tuple[str, ...]:
        return tuple(f"mesh.{axis.name}={axis.size}" for axis in self.changed)


def with_nearest_meshes(
    fault: PlanError, axes: tuple[Axis, ...], length: int, works: Callable[[Sequence[str]], bool]
) -> PlanError:
    """The same fault; where it is a fold that does not fit, with help that names the nearest meshes that work.

    `works` tells whether the plan, of `length` letters, can be read with overrides such as `mesh.dp=4`.
    """
    at = [n for n, diagnostic in enumerate(fault.diagnostics) if diagnostic.code in MISFITS]
    if not at or not axes:
        return fault
    told = list(fault.diagnostics)
    offers = _nearest(axes, max(1, _LETTERS // (length + 1)), works)
    told[at[-1]] = replace(told[at[-1]], help=(*told[at[-1]].help, *_said(offers)))
    return PlanError(told)


def _said(offers: Sequence[_Offer]) -> Iterator[str]:
    for n, offer in enumerate(offers):
        sets = " ".join(f"--set {text}" for text in offer.sets)
        ranks = f"{'still ' if offer.same_world else ''}{offer.world} rank{'s' if offer.world > 1 else ''}"
        yield f"{'or' if n else 'the nearest mesh that works:'} `{sets}`, {ranks}"


def _nearest(axes: tuple[Axis, ...], readings: int, works: Callable[[Sequence[str]], bool]) -> list[_Offer]:
    """Fewest changed axes first, then those that keep the number of ranks, then by ratio; one for each set of axes."""
    offers: list[_Offer] = []
    involved = [axis for axis in axes if axis.over or any(axis.name in fold.over for fold in axes)][:_AXES]
    for count in (1, 2):
        sets = list(combinations(involved, count))
        for changed in sets:
            names = {axis.name for axis in changed}
            if len(offers) < _OFFERED and not any(names >= {axis.name for axis in offer.changed} for offer in offers):
                others = islice(_others(axes, changed), max(1, readings // 2 // len(sets)))
                offers += islice((offer for offer in others if works(offer.sets)), 1)
        offers.sort(key=attrgetter("rank"))
    return offers


def _others(axes: tuple[Axis, ...], changed: tuple[Axis, ...]) -> Iterator[_Offer]:
    """Every mesh that fits together and differs in the sizes of all these axes, the nearest first."""
    world = _world(axes)
    sizes = [_sizes(axis, axes) for axis in changed]
    offers: list[_Offer] = []
    for combination in product(*sizes):
        new = tuple(replace(axis, size=size) for axis, size in zip(changed, combination, strict=True))
        by_name = {axis.name: axis for axis in new}
        ranks = _world([by_name.get(axis.name, axis) for axis in axes])
        ratio = sum(abs(math.log(axis.size / old.size)) for axis, old in zip(new, changed, strict=True))
        offers.append(_Offer(new, ranks, ranks == world, round(ratio, 9)))
    for offer in sorted(offers, key=attrgetter("rank")):
        by_name = {axis.name: axis for axis in offer.changed}
        if _fits(tuple(by_name.get(axis.name, axis) for axis in axes)):
            yield offer


def _sizes(axis: Axis, axes: tuple[Axis, ...]) -> list[int]:
    """Other sizes of an axis, the nearest first, and of two as near the larger."""
    parts = {part for other in axes for part in divisors(other.size)}
    near = {*range(1, 17), *parts, *(axis.size * factor for factor in (2, 3, 4, 6, 8))} - {axis.size}
    return sorted(near, key=lambda size: (abs(math.log(size / axis.size)), -size))[:_SIZES]


def _fits(axes: tuple[Axis, ...]) -> bool:
    try:
        return bool(Mesh(axes).atoms)
    except MeshFault:
        return False


def _world(axes: Iterable[Axis]) -> int:
    return math.prod(axis.size for axis in axes if not axis.over)

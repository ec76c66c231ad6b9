"""Makes long series short enough to draw, without losing a peak."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from moec.compiler.plot.read_metrics import Point

Item = TypeVar("Item")


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many points: of each run of neighbours the least and the greatest, in their order."""
    if len(points) <= most:
        return list(points)
    kept: list[Point] = []
    for run in runs(points, most // 2):
        kept += sorted({min(run, key=_value), max(run, key=_value)})
    return kept


def averaged(points: Sequence[Point], most: int) -> list[Point]:
    """At most so many points: of each run of neighbours the last step with the mean of all."""
    if len(points) <= most:
        return list(points)
    return [(run[-1][0], sum(value for _, value in run) / len(run)) for run in runs(points, most)]


def runs(items: Sequence[Item], count: int) -> Iterator[Sequence[Item]]:
    """Neighbours in so many runs of nearly one length, none of them empty."""
    count = min(count, len(items))
    for n in range(count):
        yield items[n * len(items) // count : (n + 1) * len(items) // count]


_value: Callable[[Point], float] = lambda point: point[1]  # noqa: E731

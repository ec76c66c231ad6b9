"""The parts of a step's time over the steps, one upon the other."""

from moec.compiler.plot.amounts import SECONDS
from moec.compiler.plot.chart import (
    BOTTOM,
    HEIGHT,
    TOP,
    Chart,
    Curve,
    Series,
    across,
    marks,
    place,
    step_marks,
    under_pointer,
)
from moec.compiler.plot.read_metrics import Point, Recorded
from moec.compiler.plot.scale import Scale
from moec.compiler.plot.thin import averaged

PARTS = (("compute", "computing"), ("communication", "talking"), ("data", "reading"))
"""Fields of the metrics from below, and the class of each in the style sheet."""

_MOST = 300


def time_chart(run: Recorded, title: str, last: int) -> Chart | None:
    """Means of neighbouring steps where there are many."""
    parts = [(name, colour, averaged(run.figures.get(name, []), _MOST)) for name, colour in PARTS]
    parts = [(name, colour, points) for name, colour, points in parts if points]
    if not parts:
        return None
    tops = _stacked([points for _, _, points in parts])
    x, y = across(last), Scale.of([value for _, value in tops[-1]], HEIGHT - BOTTOM, TOP, zero=True)
    floors = [[(step, 0.0) for step, _ in tops[0]], *tops[:-1]]
    curves = [
        Curve(name, colour, _area(floor, top, x, y), filled=True)
        for (name, colour, _), floor, top in zip(parts, floors, tops, strict=True)
    ]
    series = [Series(name, colour, points) for name, colour, points in parts]
    return Chart(title, "", tuple(curves), step_marks(x), marks(y, SECONDS), under_pointer(x, series, SECONDS))


def _stacked(parts: list[list[Point]]) -> list[list[Point]]:
    """The upper edge of each part; a step that one of them lacks is left out."""
    common = set.intersection(*({step for step, _ in points} for points in parts))
    tops: list[list[Point]] = []
    height = dict.fromkeys(common, 0.0)
    for points in parts:
        height = {step: height[step] + value for step, value in points if step in common}
        tops.append(list(height.items()))
    return tops


def _area(floor: list[Point], top: list[Point], x: Scale, y: Scale) -> str:
    edge = [*top, *reversed(floor)]
    return "M" + "L".join(f"{place(x.place(step))} {place(y.place(value))}" for step, value in edge) + "Z"

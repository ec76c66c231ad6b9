"""Curves of one figure over the steps, with their axes, as places on a drawing."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from moec.compiler.plot.amounts import PLAIN, Amount
from moec.compiler.plot.read_metrics import Point
from moec.compiler.plot.scale import Scale
from moec.compiler.plot.thin import thin

WIDTH, HEIGHT = 640, 230
LEFT, RIGHT, TOP, BOTTOM = 74, 28, 10, 24
BOX = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "foot": HEIGHT - BOTTOM}
"""Where the axes of a drawing lie."""

MOST_POINTS = 600


@dataclass(frozen=True, slots=True)
class Series:
    """What one curve is drawn from; `colour` is a class of the style sheet."""

    name: str
    colour: str
    points: Sequence[Point]
    dots: bool = False
    """Points that stand alone, as those of an evaluation do."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A round number on an axis."""

    at: str
    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    """A series in places: a line, an area, or dots."""

    name: str
    colour: str
    path: str = ""
    dots: tuple[tuple[str, str], ...] = ()
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """One drawing in finished places and words; `data` is for the pointer, which asks what lies under it."""

    title: str
    note: str
    curves: tuple[Curve, ...]
    across: tuple[Mark, ...]
    up: tuple[Mark, ...]
    data: dict[str, object] = field(default_factory=dict)


def line_chart(
    title: str, series: Sequence[Series], last: int, amount: Amount = PLAIN, zero: bool = False, note: str = ""
) -> Chart | None:
    """Curves over the steps up to the last, from 0 on if asked; None where there are no points."""
    thinned = [Series(each.name, each.colour, thin(each.points, MOST_POINTS), each.dots) for each in series]
    values = [value for each in thinned for _, value in each.points]
    if not values:
        return None
    x, y = across(last), Scale.of(values, HEIGHT - BOTTOM, TOP, zero)
    curves = tuple(_curve(each, x, y) for each in thinned if each.points)
    return Chart(title, note, curves, step_marks(x), marks(y, amount), under_pointer(x, thinned, amount))


def across(last: int) -> Scale:
    """The steps."""
    return Scale(1, max(2, last), LEFT, WIDTH - RIGHT)


def step_marks(x: Scale) -> tuple[Mark, ...]:
    return tuple(Mark(place(x.place(step)), f"{step:,.0f}") for step in x.marks(whole=True))


def marks(y: Scale, amount: Amount) -> tuple[Mark, ...]:
    return tuple(Mark(place(y.place(value)), amount.text(value)) for value in y.marks(unit=amount.unit(y.most)))


def place(value: float) -> str:
    return f"{value:.1f}"


def under_pointer(x: Scale, series: Sequence[Series], amount: Amount) -> dict[str, object]:
    """What the page's script says of the step that is pointed at."""
    return {
        "least": x.least,
        "most": x.most,
        "series": [
            {"name": each.name, "steps": [s for s, _ in each.points], "said": [amount.text(v) for _, v in each.points]}
            for each in series
            if each.points
        ],
    }


def _curve(series: Series, x: Scale, y: Scale) -> Curve:
    """A single point is a dot: a line of one point shows nothing."""
    places = [(place(x.place(step)), place(y.place(value))) for step, value in series.points]
    if series.dots or len(places) == 1:
        return Curve(series.name, series.colour, dots=tuple(places))
    return Curve(series.name, series.colour, "M" + "L".join(f"{a} {b}" for a, b in places))

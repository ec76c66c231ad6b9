"""Draws the metrics of one run or several as a page that needs nothing else: no network, no other file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from moec.compiler.plot.amounts import BYTES, PLAIN, SECONDS, SHARE
from moec.compiler.plot.chart import BOX, Chart, Series, line_chart
from moec.compiler.plot.heat_map import HeatMap, heat_map
from moec.compiler.plot.read_metrics import Recorded
from moec.compiler.plot.stack import time_chart
from moec.compiler.templates import templates

_FOLDER = Path(__file__).parent / "templates"
_STYLE = Path(__file__).parents[1] / "report" / "templates"

_FIGURES = (
    ("lr", "learning rate", PLAIN),
    ("grad_norm", "gradient norm, before clipping", PLAIN),
    ("tokens_per_second", "tokens/s", PLAIN),
    ("seconds", "time of a step", SECONDS),
    ("memory", "memory at the peak, of the fullest stage", BYTES),
)
"""Fields of the metrics that are drawn as they are, from 0 on: title, and how a value is written."""

_HELD_OUT = "held_out_loss"

_COLOURS = 8
"""Runs whose curves differ by colour; then these come again."""


@dataclass(frozen=True, slots=True)
class Section:
    """What there is of one run alone."""

    name: str
    charts: tuple[Chart, ...]
    maps: tuple[HeatMap, ...]


def plot_html(recorded: Sequence[Recorded]) -> str:
    """Curves of all runs side by side; then of each where its time goes, and what its experts got."""
    last = max(run.steps for run in recorded)
    charts = [chart for chart in (_losses(recorded, last), *_curves(recorded, last)) if chart]
    sections = [_section(run, last) for run in recorded]
    page = (
        templates(_FOLDER, autoescape=True)
        .get_template("plot.html.jinja")
        .render(
            title=", ".join(run.name for run in recorded),
            style=Markup(templates(_STYLE).get_template("report.css.jinja").render()),
            names=[(run.name, _colour(n), _said(run)) for n, run in enumerate(recorded)],
            charts=charts,
            sections=sections,
            box=BOX,
            data=_in_script([chart.data for chart in [*charts, *(each for s in sections for each in s.charts)]]),
        )
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # the name of a file need not be text


def _losses(recorded: Sequence[Recorded], last: int) -> Chart | None:
    """Of training as lines, of what is held out as dots."""
    dots = [Series(f"{each.name}, held out", each.colour, each.points, True) for each in _series(recorded, _HELD_OUT)]
    note = "dots: of samples that are held out of training" if any(each.points for each in dots) else ""
    return line_chart("loss", [*_series(recorded, "loss"), *dots], last, note=note)


def _curves(recorded: Sequence[Recorded], last: int) -> list[Chart | None]:
    return [line_chart(title, _series(recorded, field), last, amount, zero=True) for field, title, amount in _FIGURES]


def _series(recorded: Sequence[Recorded], field: str) -> list[Series]:
    """One of each run."""
    return [Series(run.name, _colour(n), run.figures.get(field, [])) for n, run in enumerate(recorded)]


def _section(run: Recorded, last: int) -> Section:
    dropped = [Series(router, _colour(n), points) for n, (router, points) in enumerate(run.dropped.items())]
    charts = [
        time_chart(run, "where the time of a step goes, mean over the ranks", last),
        line_chart("choices of experts without room, by router", dropped, last, SHARE, zero=True),
    ]
    maps = [heat_map(router, loads) for router, loads in run.experts.items()]
    return Section(run.name, tuple(each for each in charts if each), tuple(each for each in maps if each))


def _said(run: Recorded) -> str:
    """A run in a few words."""
    words = [f"{run.steps:,} steps"]
    if loss := run.figures.get("loss"):
        words.append(f"loss {loss[0][1]:.4f} → {loss[-1][1]:.4f}")
    if run.skipped:
        words.append(f"{len(run.skipped)} skipped")
    return ", ".join(words)


def _colour(n: int) -> str:
    return f"run-{n % _COLOURS}"


def _in_script(data: object) -> Markup:
    """JSON that may stand in a script element: nothing in it can end the element, or begin a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))

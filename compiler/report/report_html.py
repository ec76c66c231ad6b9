"""Writes an estimate as one HTML page that needs nothing else: no network, no other file."""

import json
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.mend import Mend
from moec.compiler.report.bounds import said_bounds
from moec.compiler.report.breakdown import step_rows
from moec.compiler.report.head import figures, said_facts, said_sources
from moec.compiler.report.kinds import step_bars
from moec.compiler.report.memory_rows import fullest_stage, memory_rows
from moec.compiler.report.page_data import page_data
from moec.compiler.report.stage_rows import stage_rows
from moec.compiler.templates import templates
from moec.dsl.show_mesh import show_mesh

_FOLDER = Path(__file__).parent / "templates"


def report_html(found: Estimate, mends: Sequence[Mend] = ()) -> str:
    """The page; `mends` are what a search has found for bounds that the plan breaks.

    Names of the plan and of its modules are escaped wherever they stand.
    """
    template = templates(_FOLDER, autoescape=True).get_template("report.html.jinja")
    page = template.render(
        name=found.program.plan.name,
        facts=said_facts(found),
        figures=figures(found),
        bounds=said_bounds(found, mends),
        bars=step_bars(found),
        times=step_rows(found),
        memory=memory_rows(found),
        fullest=fullest_stage(found),
        stages=stage_rows(found),
        mesh=show_mesh(found.program.plan),
        sources=said_sources(found),
        data=_in_script(page_data(found)),
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")  # the name of a file need not be text


def _in_script(data: object) -> Markup:
    """JSON that may stand in a script element: nothing in it can end the element, or begin a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))

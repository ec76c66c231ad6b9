"""`moec show`."""

import argparse
import os
import re
import sys

from moec.commands.steps import compiled, read
from moec.commands.tell import say
from moec.dsl import Plan
from moec.dsl.diagnostics import plan_error
from moec.dsl.show_mesh import show_mesh


def show_command(options: argparse.Namespace, _: float) -> int:
    """`moec show`: print a part of what the plan becomes."""
    plan = read(options)
    if options.rank is not None:
        _print_python(_emitted(plan, "rank", options.rank, plan.mesh.world_size))
    elif options.stage is not None:
        stages = plan.mesh.axis(plan.pipeline_axis).size if plan.pipeline_axis else 1
        _print_python(_emitted(plan, "stage", options.stage, stages))
    elif options.after is not None:
        from moec.compiler.show import show_after

        say(show_after(plan, options.after).removesuffix("\n"))
    elif options.weights or options.program:
        from moec.compiler.show import show_program, show_weights

        show = show_weights if options.weights else show_program
        say(show(compiled(plan)).removesuffix("\n"))
    else:
        say(show_mesh(plan).removesuffix("\n"))
    return 0


def _emitted(plan: Plan, kind: str, number: int, count: int) -> str:
    """The text of `rank_007.py` or `stage_1.py`."""
    if not 0 <= number < count:
        headline = f"there is no {kind} {number}: the plan has {count}, counted from 0"
        raise plan_error("E115", headline, f"write --{kind} {count - 1} or less")
    from moec.compiler.emit import emit

    files = emit(compiled(plan))
    return next(text for name, text in files.items() if re.fullmatch(rf"{kind}_0*{number}\.py", name))


def _print_python(text: str) -> None:
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        say(text.removesuffix("\n"))
        return
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(text, "python", background_color="default"))

"""`moec plot`: the metrics of runs as curves on a page."""

import argparse
from pathlib import Path

from moec.commands.outputs import PAGE, check_output, write_output
from moec.commands.tell import say
from moec.dsl.diagnostics import PlanError, plan_error


def plot_command(options: argparse.Namespace, _: float) -> int:
    """`moec plot`: draw what main.py wrote with --log."""
    from moec.compiler.plot import plot_html

    target = options.output or str(Path(options.metrics[0]).with_suffix(".html"))
    check_output(Path(target), PAGE)
    recorded = [_read(path, name) for path, name in zip(options.metrics, _names(options.metrics), strict=True)]
    write_output(Path(target), PAGE, plot_html(recorded))
    say(f"{target} shows {', '.join(f'{run.steps:,} steps of {run.name}' for run in recorded)}")
    return 0


def _read(path: str, name: str):
    from moec.compiler.plot import Unreadable, read_metrics

    try:
        return read_metrics(Path(path), name)
    except Unreadable as fault:
        raise _fault(path, str(fault)) from None


def _fault(path: str, why: str) -> PlanError:
    return plan_error("E509", f"`{path}` holds no metrics of a run: {why}", "name what main.py wrote: --log FILE")


def _names(paths: list[str]) -> list[str]:
    """What tells the files apart: their names, or all of the path where names are the same."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else paths

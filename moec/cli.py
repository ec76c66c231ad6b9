"""The `moec` command: reads a plan, and compiles, checks, shows, verifies, runs, estimates or formats it.

Exit status: 0; 1 if a valid plan fails a proof, or its check since it breaks a bound; 2 if the plan or the command line
is at fault.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from io import TextIOWrapper

from moec.commands.calibrate import calibrate_command
from moec.commands.checkpoint import checkpoint_command, export_command
from moec.commands.compile import check_command, compile_command, run_command
from moec.commands.estimate import compare_command, estimate_command, report_command
from moec.commands.plans import explain_command, fmt_command, new_command
from moec.commands.plot import plot_command
from moec.commands.show import show_command
from moec.commands.tell import finish, let_go, say_where_to_read_on, tell
from moec.commands.verify import verify_command
from moec.dsl import PlanError
from moec.options import parse_options

COMMANDS: dict[str, Callable[[argparse.Namespace, float], int]] = {
    "compile": compile_command,
    "check": check_command,
    "show": show_command,
    "verify": verify_command,
    "run": run_command,
    "estimate": estimate_command,
    "compare": compare_command,
    "report": report_command,
    "calibrate": calibrate_command,
    "checkpoint": checkpoint_command,
    "export": export_command,
    "plot": plot_command,
    "new": new_command,
    "fmt": fmt_command,
    "explain": explain_command,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    for stream in (sys.stdout, sys.stderr):  # names of files may hold what the terminal's encoding does not
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        finish()
        return status
    except PlanError as fault:  # standard output takes no more
        return _told(fault)
    except BrokenPipeError:  # whoever reads our output has seen enough, as `head` does
        let_go()
        return 0


def _run(arguments: Sequence[str]) -> int:
    try:
        options = parse_options(arguments)
        return COMMANDS[options.command](options, time.perf_counter())
    except PlanError as fault:
        return _told(fault)
    except SystemExit:  # what was asked for is printed: --help, --version
        finish()
        raise


def _told(fault: PlanError) -> int:
    tell(fault.diagnostics)
    say_where_to_read_on(fault.diagnostics)
    return 2

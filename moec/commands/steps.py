"""What commands have in common: read a plan, compile it, check what comes out, write it down.

The compiler, and torch with it, is imported once the plan has been read without faults.
"""

import argparse
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moec.commands.progress import working
from moec.commands.tell import tell
from moec.dsl import Plan, read_plan
from moec.dsl.diagnostics import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from moec.compiler.check import Report
    from moec.compiler.program import Program

PAGE = "report.html"
"""Beside the programs: what they are and what they cost, in pictures."""

MOST_PROCESSES = 64
"""That are started on one machine without being told how many."""


def read(options: argparse.Namespace) -> Plan:
    plan = read_plan(options.plan, options.overrides)
    tell(plan.warnings)
    return plan


def output_folder(plan: Plan, options: argparse.Namespace) -> Path:
    """Where the output goes; raises PlanError before anything is compiled if it cannot."""
    from moec.compiler.folder import check_folder

    folder = Path(options.output) if options.output is not None else default_folder(plan)
    check_folder(folder)
    return folder


def default_folder(plan: Plan) -> Path:
    return Path("build") / plan.name


def compiled(plan: Plan) -> "Program":
    from moec.compiler.pipeline import compile_plan

    with working("compiling"):
        program = compile_plan(plan)
    gc.freeze()  # what is imported and traced by now stays: collections need not go through it again and again
    gc.enable()
    return program


def emitted_and_checked(program: "Program", folder: Path | None = None) -> "tuple[dict[str, str], Report]":
    """The files of a program as they are for this folder, and what the check of all ranks' instructions found."""
    from moec.compiler.check import check
    from moec.compiler.emit import emit

    with working(f"checking the programs of {program.world_size} ranks"):
        files = emit(program, output=folder)
        return files, check(program, files)


def written(plan: Plan, folder: Path, page: "Callable[[Program], str] | None" = None) -> "tuple[Program, Report]":
    """Compile into a folder, with a page about it; nothing is written where the programs fail their check."""
    from moec.compiler.folder import write_folder
    from moec.compiler.verify.certificate import compiled_certificate
    from moec.runtime.certificate import CERTIFICATE

    program = compiled(plan)
    files, report = emitted_and_checked(program, folder)
    if not report.faults:
        files[CERTIFICATE] = compiled_certificate(program, files, report, folder)
        write_folder(folder, files | ({PAGE: page(program)} if page else {}))
    return program, report


def tell_own_faults(report: "Report") -> int:
    """Programs that fail their check are not written."""
    from moec.compiler.check import to_tell

    print("error: the programs that moec made of this plan fail moec's own check; nothing was written", file=sys.stderr)
    print("\n".join(printable(f"  {fault}") for fault in to_tell(report.faults)), file=sys.stderr)
    print(" = help: the fault is in moec, not in the plan: please report it with the plan", file=sys.stderr)
    return 1


def checked_record(report: "Report") -> dict[str, object]:
    faults = [str(fault) for fault in report.faults]
    return {"ranks": report.ranks, "classes": report.classes, "seconds": round(report.seconds, 3), "faults": faults}

"""The `moec` command: reads a plan, and compiles, checks, shows, verifies, runs or formats it.

Exit status: 0; 1 if a valid plan fails a proof; 2 if the plan or the command line is at fault. The compiler, and torch
with it, is imported once the plan has been read without faults, so that a faulty one is answered at once.
"""

import argparse
import gc
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from moec.dsl import Diagnostic, Plan, PlanError, read_plan, render
from moec.dsl.diagnostics import as_record, plan_error
from moec.dsl.explain import explain, list_codes
from moec.dsl.show_mesh import say_mesh, say_tilings, show_mesh
from moec.options import parse_options
from moec.plan_files import format_files, write_starter

if TYPE_CHECKING:
    from moec.compiler.check import Report
    from moec.compiler.program import Program
    from moec.compiler.verify import Verdict

MOST_PROCESSES = 64
"""That `moec run` starts without being told how many."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    for stream in (sys.stdout, sys.stderr):  # names of files may hold what the terminal's encoding does not
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        options = parse_options(sys.argv[1:] if arguments is None else arguments)
        return COMMANDS[options.command](options, time.perf_counter())
    except PlanError as fault:
        _tell(fault.diagnostics)
        _say_where_to_read_on(fault.diagnostics)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads our output has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def compile_command(options: argparse.Namespace, started: float) -> int:
    """`moec compile`: write the rank programs."""
    plan = _read(options)
    folder = _folder(plan, options)
    program = _compiled(plan)
    files, report = _emitted_and_checked(program, folder)
    if report.faults:
        return _tell_own_faults(report)
    _write(folder, files, program, report)
    seconds = time.perf_counter() - started
    if options.json:
        record = {**_counts(program), "seconds": round(seconds, 3), "output": str(folder)}
        print(json.dumps(record | {"checked": _checked_record(report)}))
        return 0
    print(_said(plan, program), report.statement, sep="\n")
    print(f"{folder}/ holds {program.world_size} rank programs, written in {seconds:.1f} s")
    print(f"start them: torchrun --nproc-per-node {_per_node(program.world_size)} -- {folder}/main.py")
    return 0


def check_command(options: argparse.Namespace, started: float) -> int:
    """`moec check`: everything that compile does, and nothing written."""
    if not options.json:
        plan = _read(options)
        program = _compiled(plan)
        _, report = _emitted_and_checked(program)
        if report.faults:
            return _tell_own_faults(report)
        print(_said(plan, program), report.statement, sep="\n")
        return 0
    try:
        plan = read_plan(options.plan, options.overrides)
        program = _compiled(plan)
        _, report = _emitted_and_checked(program)
    except PlanError as fault:
        print(json.dumps({"valid": False, "diagnostics": [as_record(each) for each in fault.diagnostics]}))
        return 2
    seconds = round(time.perf_counter() - started, 3)
    warnings = [as_record(each) for each in plan.warnings]
    record = {"valid": True, "diagnostics": warnings, **_counts(program), "seconds": seconds}
    print(json.dumps(record | {"checked": _checked_record(report)}))
    return 1 if report.faults else 0


def show_command(options: argparse.Namespace, _: float) -> int:
    """`moec show`: print a part of what the plan becomes."""
    plan = _read(options)
    if options.rank is not None:
        _print_python(_emitted(plan, "rank", options.rank, plan.mesh.world_size))
    elif options.stage is not None:
        stages = plan.mesh.axis(plan.pipeline_axis).size if plan.pipeline_axis else 1
        _print_python(_emitted(plan, "stage", options.stage, stages))
    elif options.after is not None:
        from moec.compiler.show import show_after

        print(show_after(plan, options.after), end="")
    elif options.weights or options.program:
        from moec.compiler.show import show_program, show_weights

        show = show_weights if options.weights else show_program
        print(show(_compiled(plan)), end="")
    else:
        print(show_mesh(plan), end="")
    return 0


def verify_command(options: argparse.Namespace, _: float) -> int:
    """`moec verify`: prove the programs equal to the unsharded model."""
    plan = _read(options)
    build = Path(options.build) if options.build is not None else None
    if build is not None and not (build / "main.py").is_file():
        headline = f"`{build}` holds no rank programs"
        help = f"write them: moec compile {options.plan} -o {build}"
        raise plan_error("E504", headline, help)
    if options.torchrun and plan.mesh.world_size > MOST_PROCESSES:
        headline = f"the plan has {plan.mesh.world_size} ranks, and --torchrun starts {MOST_PROCESSES} here at most"
        raise plan_error("E116", headline, "shrink the mesh: --set mesh.AXIS=1", "or leave --torchrun out")
    from moec.compiler.verify import statement, verify

    output = _default_folder(plan)
    verdict = verify(plan, _compiled(plan), build, output, options.exact_shape, options.torchrun)
    certificate = _certify(verdict, build or output, options.certificate)
    if options.json:
        print(json.dumps(_verdict_record(verdict) | {"certificate": str(certificate) if certificate else None}))
    else:
        written = [f"written to {certificate}"] if certificate else []
        print("\n".join((*statement(verdict), *verdict.faults, *written)))
    return 0 if verdict.equal else 1


def _certify(verdict: "Verdict", folder: Path, elsewhere: str | None) -> Path | None:
    """Write down what was proved, beside the programs if they are there; where, or None."""
    from moec.compiler.verify.certificate import is_of, verified_certificate, write_certificate
    from moec.runtime.certificate import CERTIFICATE

    if verdict.checked is None or (elsewhere is None and not is_of(folder, verdict.files)):
        return None
    path = Path(elsewhere) if elsewhere is not None else folder / CERTIFICATE
    try:
        write_certificate(path, verified_certificate(verdict, folder))
    except OSError as fault:
        raise plan_error("E502", f"`{path}` cannot be written: {fault.strerror}", "--certificate FILE") from None
    return path


def _verdict_record(verdict: "Verdict") -> dict[str, object]:
    errors = {name: error if math.isfinite(error) else None for name, error in verdict.errors.items()}
    runs = [run.comparison.decisions.choices for run in verdict.tested]
    return {
        "ranks": verdict.program.world_size,
        "equal": verdict.equal,
        "max_error": errors,
        "choices_of_experts": runs,
        "seconds": round(verdict.seconds, 3),
        "shrunk": verdict.shrunk,
        "processes": [run.processes for run in verdict.tested],
        "faults": verdict.faults,
        "checked": _checked_record(verdict.checked) if verdict.checked is not None else None,
    }


def run_command(options: argparse.Namespace, _: float) -> int:
    """`moec run`: compile, and start every rank here under torchrun."""
    plan = _read(options)
    world = plan.mesh.world_size
    if options.nproc is None and world > MOST_PROCESSES:
        headline = f"the plan has {world} ranks, which is much for one machine"
        help = f"start so many all the same: --nproc {world}", "or shrink the mesh: --set mesh.AXIS=1"
        raise plan_error("E116", headline, *help)
    if options.nproc not in (None, world):
        headline = f"the plan has {world} ranks, and --nproc asks for {options.nproc} processes"
        help = f"write --nproc {world}, or change the mesh with --set", "several machines: torchrun --nnodes"
        raise plan_error("E116", headline, *help)
    folder = _folder(plan, options)
    program = _compiled(plan)
    files, report = _emitted_and_checked(program, folder)
    if report.faults:
        return _tell_own_faults(report)
    _write(folder, files, program, report)
    # Without `--` torchrun takes --log for its own, under Pythons whose argparse looks for abbreviations everywhere.
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world), "--"]
    environment = {"OMP_NUM_THREADS": "1", **os.environ}  # what torchrun sets itself, and says so at length
    ended = subprocess.run([*launcher, str(folder / "main.py"), *options.passed], env=environment)
    return 1 if ended.returncode else 0


def new_command(options: argparse.Namespace, _: float) -> int:
    """`moec new`: write a plan to start from."""
    path = write_starter(options.name, options.output)
    print(f"{path} is a small mixture of experts on 8 ranks", f"prove it: moec verify {path}", sep="\n")
    return 0


def fmt_command(options: argparse.Namespace, _: float) -> int:
    """`moec fmt`: write plans in their canonical form, or say which are not."""
    return format_files(options.plans, options.check)


def explain_command(options: argparse.Namespace, _: float) -> int:
    """`moec explain`: the page of a code, or all codes."""
    print(list_codes() if options.code is None else explain(options.code), end="")
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace, float], int]] = {
    "compile": compile_command,
    "check": check_command,
    "show": show_command,
    "verify": verify_command,
    "run": run_command,
    "new": new_command,
    "fmt": fmt_command,
    "explain": explain_command,
}


def _read(options: argparse.Namespace) -> Plan:
    plan = read_plan(options.plan, options.overrides)
    _tell(plan.warnings)
    return plan


def _tell(diagnostics: Iterable[Diagnostic]) -> None:
    text = render(diagnostics, color=sys.stderr.isatty() and "NO_COLOR" not in os.environ)
    if text:
        print(text, file=sys.stderr)


def _say_where_to_read_on(diagnostics: Sequence[Diagnostic]) -> None:
    """To a person only: what reads our output otherwise gets the diagnostics and nothing else."""
    if sys.stderr.isatty():
        print(f"more about {diagnostics[0].code}: moec explain {diagnostics[0].code}", file=sys.stderr)


def _folder(plan: Plan, options: argparse.Namespace) -> Path:
    """Where the output goes; raises PlanError before anything is compiled if it cannot."""
    from moec.compiler.folder import check_folder

    folder = Path(options.output) if options.output is not None else _default_folder(plan)
    check_folder(folder)
    return folder


def _default_folder(plan: Plan) -> Path:
    return Path("build") / plan.name


def _compiled(plan: Plan) -> "Program":
    from moec.compiler.pipeline import compile_plan

    gc.freeze()  # what is imported by now stays: collections need not go through it again and again
    return compile_plan(plan)


def _emitted_and_checked(program: "Program", folder: Path | None = None) -> "tuple[dict[str, str], Report]":
    """The files of a program as they are for this folder, and what the check of all ranks' instructions found."""
    from moec.compiler.check import check
    from moec.compiler.emit import emit

    files = emit(program, output=folder)
    return files, check(program, files)


def _write(folder: Path, files: dict[str, str], program: "Program", report: "Report") -> None:
    from moec.compiler.folder import write_folder
    from moec.compiler.verify.certificate import compiled_certificate
    from moec.runtime.certificate import CERTIFICATE

    write_folder(folder, files | {CERTIFICATE: compiled_certificate(program, files, report, folder)})


def _tell_own_faults(report: "Report") -> int:
    """Programs that fail their check are not written."""
    print("error: the programs that moec made of this plan fail moec's own check; nothing was written", file=sys.stderr)
    print("\n".join(f"  {fault}" for fault in report.faults[:3]), file=sys.stderr)
    print(" = help: the fault is in moec, not in the plan: please report it with the plan", file=sys.stderr)
    return 1


def _checked_record(report: "Report") -> dict[str, object]:
    faults = [str(fault) for fault in report.faults]
    return {"ranks": report.ranks, "classes": report.classes, "seconds": round(report.seconds, 3), "faults": faults}


def _emitted(plan: Plan, kind: str, number: int, count: int) -> str:
    """The text of `rank_007.py` or `stage_1.py`."""
    if not 0 <= number < count:
        headline = f"there is no {kind} {number}: the plan has {count}, counted from 0"
        raise plan_error("E115", headline, f"write --{kind} {count - 1} or less")
    from moec.compiler.emit import emit

    files = emit(_compiled(plan))
    return next(text for name, text in files.items() if re.fullmatch(rf"{kind}_0*{number}\.py", name))


def _print_python(text: str) -> None:
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        print(text, end="")
        return
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(text, "python", background_color="default"))


def _counts(program: "Program") -> dict[str, int]:
    return {
        "world_size": program.world_size,
        "parameters": program.parameters,
        "distinct_programs": program.distinct_programs,
    }


def _said(plan: Plan, program: "Program") -> str:
    lines = [f"{plan.name}: {_large(program.parameters)} parameters, {say_mesh(plan.mesh)}", *say_tilings(plan)]
    distinct, ranks = program.distinct_programs, program.world_size
    return "\n".join(
        [
            *lines,
            f"{distinct} distinct program{'s' if distinct != 1 else ''} for {ranks} rank{'s' if ranks != 1 else ''}",
        ]
    )


def _large(number: int) -> str:
    for scale, word in ((10**9, "billion"), (10**6, "million")):
        if number >= scale:
            return f"{number / scale:.1f} {word}"
    return f"{number:,}"


def _per_node(world: int) -> str:
    return str(world) if world <= 8 else f"8 --nnodes {world // 8}" if world % 8 == 0 else str(world)

"""`moec compile`, `moec check` and `moec run`."""

import argparse
import json
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moec.commands.estimate import estimated, machine, requirements_record, said_mends, searched, without_effect
from moec.commands.steps import (
    MOST_PROCESSES,
    checked_record,
    compiled,
    emitted_and_checked,
    output_folder,
    read,
    tell_own_faults,
    written,
)
from moec.commands.tell import finish, say, tell
from moec.dsl import Diagnostic, Plan, PlanError, read_plan
from moec.dsl.diagnostics import as_record, plan_error
from moec.dsl.show_mesh import say_mesh, say_tilings

if TYPE_CHECKING:
    from moec.compiler.check import Report
    from moec.compiler.cost import Estimate, Mend, Requirement
    from moec.compiler.program import Program


def compile_command(options: argparse.Namespace, started: float) -> int:
    """`moec compile`: write the rank programs, and a page about them. Bounds that are broken are told, no more."""
    plan = read(options)
    from moec.compiler.cost import decide, say_requirements

    target = output_folder(plan, options)
    machine(plan, options)
    estimates: list[Estimate] = []

    def page(program: "Program") -> str:
        from moec.compiler.report.report_html import report_html

        estimates.append(estimated(plan, program, options))
        return report_html(estimates[0])

    program, report = written(plan, target, page)
    if report.faults:
        return tell_own_faults(report)
    bounds = decide(estimates[0])
    tell(without_effect(options, estimates[0]))
    seconds = time.perf_counter() - started
    if options.json:
        record = {**_counts(program), "seconds": round(seconds, 3), "output": str(target)}
        say(json.dumps(record | {"checked": checked_record(report)} | requirements_record(bounds, ())))
        return 0
    unfit = _does_not_fit(estimates[0], options)
    say(_said(plan, program), report.statement, *say_requirements(bounds), *unfit)
    say(f"{target}/ holds {program.world_size} rank programs, written in {seconds:.1f} s")
    say(f"start them: torchrun --nproc-per-node {_per_node(program.world_size)} -- {target}/main.py")
    return 0


def check_command(options: argparse.Namespace, started: float) -> int:
    """`moec check`: everything that compile does, and nothing written; 1 if a bound of the plan is broken."""
    if not options.json:
        plan = read(options)
        from moec.compiler.cost import say_requirements

        program, report, decided = _checked(plan, options)
        if report.faults:
            return tell_own_faults(report)
        tell(decided.warnings)
        bounds = (*say_requirements(decided.bounds), *said_mends(decided.mends))
        say(_said(plan, program), report.statement, *_does_not_fit(decided.found, options), *bounds)
        return 0 if decided.kept else 1
    try:
        plan = read_plan(options.plan, options.overrides)
        program, report, decided = _checked(plan, options)
    except PlanError as fault:
        say(json.dumps({"valid": False, "diagnostics": [as_record(each) for each in fault.diagnostics]}))
        return 2
    seconds = round(time.perf_counter() - started, 3)
    warnings = [as_record(each) for each in (*plan.warnings, *decided.warnings)]
    record = {"valid": True, "diagnostics": warnings, **_counts(program), "seconds": seconds}
    record |= {"fits": decided.found.fits} if decided.found else {}
    bounds = requirements_record(decided.bounds, decided.mends)
    say(json.dumps(record | {"checked": checked_record(report)} | bounds))
    return 1 if report.faults or not decided.kept else 0


@dataclass(frozen=True, slots=True)
class _Decided:
    """What a plan costs, its bounds, changes that would keep those that it breaks, and what to say of the options."""

    found: "Estimate | None" = None
    bounds: "tuple[Requirement, ...]" = ()
    mends: "tuple[Mend, ...]" = ()
    warnings: tuple[Diagnostic, ...] = ()

    @property
    def kept(self) -> bool:
        return all(bound.passed for bound in self.bounds)


def _checked(plan: Plan, options: argparse.Namespace) -> "tuple[Program, Report, _Decided]":
    """The program, what its check found, and its bounds; a plan without bounds and hardware is not estimated."""
    from moec.compiler.cost import decide

    machine(plan, options)
    program = compiled(plan)
    _, report = emitted_and_checked(program)
    if report.faults or not (plan.require or plan.hardware or options.routing):
        return program, report, _Decided()
    found = estimated(plan, program, options)
    return program, report, _Decided(found, decide(found), searched(found, options), without_effect(options, found))


def _does_not_fit(found: "Estimate | None", options: argparse.Namespace) -> list[str]:
    """A line with the command that shows why; none where it fits."""
    if found is None or found.fits:
        return []
    given = [options.plan, *(f"--set={each}" for each in options.overrides)]
    given += [f"--hardware={each}" for each in options.hardware]
    return [f"does not fit on {found.machine.title}: moec estimate {shlex.join(given)}"]


def run_command(options: argparse.Namespace, _: float) -> int:
    """`moec run`: compile, and start every rank here under torchrun. Bounds that are broken are told, no more."""
    plan = read(options)
    world = plan.mesh.world_size
    if options.nproc is None and world > MOST_PROCESSES:
        headline = f"the plan has {world} ranks, which is much for one machine"
        help = f"start so many all the same: --nproc {world}", "or shrink the mesh: --set mesh.AXIS=1"
        raise plan_error("E116", headline, *help)
    if options.nproc not in (None, world):
        headline = f"the plan has {world} ranks, and --nproc asks for {options.nproc} processes"
        help = f"write --nproc {world}, or change the mesh with --set", "several machines: torchrun --nnodes"
        raise plan_error("E116", headline, *help)
    target = output_folder(plan, options)
    machine(plan, options)
    program, report = written(plan, target)
    if report.faults:
        return tell_own_faults(report)
    if plan.require or options.routing:
        from moec.compiler.cost import decide, say_requirements

        found = estimated(plan, program, options)
        tell(without_effect(options, found))
        say(*say_requirements(decide(found)))
        finish()  # before what the ranks say
    from moec.commands.start_ranks import start_ranks
    from moec.runtime.launch import torchrun

    # Without `--` torchrun takes --log for its own, under Pythons whose argparse looks for abbreviations everywhere.
    return start_ranks(torchrun(world, "--", str(target / "main.py"), *options.passed))


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

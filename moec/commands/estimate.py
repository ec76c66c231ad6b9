"""`moec estimate`, `moec compare` and `moec report`."""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moec.commands.outputs import PAGE, TRACE, check_output, write_output
from moec.commands.progress import working
from moec.commands.steps import PAGE as PAGE_NAME
from moec.commands.steps import compiled, read
from moec.commands.tell import say, tell
from moec.dsl import Diagnostic, Plan, read_plan, vary_plan
from moec.dsl.diagnostics import Severity, plan_error, printable

if TYPE_CHECKING:
    from moec.compiler.cost import Estimate, Machine, Mend, Requirement
    from moec.compiler.program import Program

UNIFORM = "uniform"
"""How tokens choose experts where the command line does not say."""


def estimate_command(options: argparse.Namespace, started: float) -> int:
    """`moec estimate`: what a plan costs, and whether its bounds are kept; 0 also where they are not."""
    plan = read(options) if not options.json else read_plan(options.plan, options.overrides)
    if options.trace is not None:
        check_output(Path(options.trace), TRACE)
    from moec.compiler.cost import as_record, decide, explain, say_estimate, say_requirements

    program = compiled(plan)
    traced = time.perf_counter()
    found = estimated(plan, program, options)
    requirements = decide(found)
    ended = time.perf_counter()
    if options.trace is not None:
        write_output(Path(options.trace), TRACE, _trace(found))
    tell(without_effect(options, found))
    explained = explain(found, options.explain) if options.explain is not None else None
    mends = searched(found, options) if options.mend else ()
    if options.json:
        if explained is not None:
            record = {"figure": options.explain, "explanation": explained.splitlines()}
            say(json.dumps(record | (requirements_record(requirements, mends) if options.mend else {})))
            return 0
        times = {"trace_seconds": round(traced - started, 3), "estimate_seconds": round(ended - traced, 3)}
        say(json.dumps(as_record(found) | requirements_record(requirements, mends) | times))
        return 0
    say(say_estimate(found) if explained is None else explained)
    if requirements and (explained is None or options.mend):
        say("", *say_requirements(requirements), *said_mends(mends))
    if explained is None:
        say(f"\ntraced in {traced - started:.1f} s, estimated in {ended - traced:.1f} s")
    return 0


def compare_command(options: argparse.Namespace, _: float) -> int:
    """`moec compare`: several plans side by side."""
    if len(options.plans) < 2:
        raise plan_error("E115", "there is one plan, and nothing to compare it with", "name two plans or more")
    plans = [read_plan(path, options.overrides) for path in options.plans]
    from moec.compiler.cost import as_record, decide, side_by_side

    found = [estimated(plan, compiled(plan), options) for plan in plans]
    tell(without_effect(options, *found))
    if options.json:
        say(
            json.dumps(
                [
                    {"plan": path} | as_record(each) | requirements_record(decide(each), ())
                    for path, each in zip(options.plans, found, strict=True)
                ]
            )
        )
        return 0
    say(side_by_side([printable(path) for path in options.plans], found))
    return 0


def report_command(options: argparse.Namespace, _: float) -> int:
    """`moec report`: a page with pictures."""
    plan = read(options)
    target = Path(options.output if options.output is not None else PAGE_NAME)
    check_output(target, PAGE)
    from moec.compiler.report.report_html import report_html

    found = estimated(plan, compiled(plan), options)
    write_output(target, PAGE, report_html(found))
    tell(without_effect(options, found))
    say(f"{target} shows {plan.name} on {found.world_size} ranks")
    return 0


def machine(plan: Plan, options: argparse.Namespace) -> "Machine":
    """The plan's hardware, of moec's table or of the files of `--hardware`."""
    from moec.compiler.cost import machine_of

    return machine_of(plan, tuple(Path(path) for path in options.hardware))


def estimated(plan: Plan, program: "Program", options: argparse.Namespace) -> "Estimate":
    """The estimate of a program on the plan's machine, with the options' choices of experts."""
    from moec.compiler.cost import estimate, read_routing

    with working(f"estimating {program.world_size} ranks"):
        return estimate(program, machine(plan, options), read_routing(options.routing or UNIFORM, program))


def without_effect(options: argparse.Namespace, *found: "Estimate") -> tuple[Diagnostic, ...]:
    """A warning of `--routing` if none of the models has experts."""
    if options.routing is None or any(each.has_experts for each in found):
        return ()
    said = "the model has" if len(found) == 1 else "the models have"
    headline = f"`--routing` has no effect: {said} no experts"
    return (Diagnostic("W002", headline, help=("leave it out",), severity=Severity.WARNING),)


def searched(found: "Estimate", options: argparse.Namespace) -> "tuple[Mend, ...]":
    """For every bound that is broken the smallest change that keeps it."""
    from moec.compiler.cost import can_retarget, decide, estimate, mend, retarget
    from moec.compiler.pipeline import compile_plan
    from moec.dsl import PlanError

    if all(each.passed for each in decide(found)):
        return ()
    plan = found.program.plan
    with working("searching for changes that keep the bounds"):
        traced = compile_plan(plan, "split_model")

        def evaluate(settings: Sequence[str]) -> "Estimate | None":
            other = vary_plan(plan, settings)
            if other is None:
                return None
            try:
                program = retarget(traced, other) if can_retarget(traced, other) else compile_plan(other)
                return estimate(program, machine(other, options), found.routing)
            except PlanError:
                return None

        return mend(found, evaluate)


def requirements_record(requirements: "Sequence[Requirement]", mends: "Sequence[Mend]") -> dict[str, object]:
    found = {(each.name, each.relation): each for each in mends}
    records = []
    for each in requirements:
        record: dict[str, object] = {
            "name": each.name,
            "relation": each.relation,
            "bound": each.bound,
            "value": each.value,
            "passed": each.passed,
            "margin": each.margin,
            "limit": each.limit,
        }
        mend = found.get((each.name, each.relation))
        if not each.passed and mend is not None:
            record["mend"] = {
                "settings": mend.settings,
                "value": mend.value,
                "passed": mend.passed,
                "breaks": mend.breaks,
                "worsens": mend.worsens,
            }
        records.append(record)
    return {"requirements": records}


def said_mends(mends: "Sequence[Mend]") -> list[str]:
    """A line for each bound that is broken."""
    from moec.compiler.cost import amount

    lines = []
    for each in mends:
        settings = " ".join(f"--set {setting}" for setting in each.settings)
        value, bound = amount(each.name, each.value), f"{each.name} {each.relation} {amount(each.name, each.bound)}"
        breaks = f"; that breaks {', '.join(each.breaks)}" if each.breaks else ""
        worsens = f"; that makes {', '.join(each.worsens)} worse" if each.worsens else ""
        but = breaks + worsens
        if each.passed:
            lines.append(f" = help: {each.name} is kept with {settings}: {value}{but}")
        elif settings:
            lines.append(f" = help: none of {each.tried} changes keeps {bound}; nearest is {settings}: {value}{but}")
        else:
            lines.append(f" = help: none of {each.tried} changes makes {bound} better")
    return lines


def _trace(found: "Estimate") -> str:
    from moec.compiler.report.trace_json import trace_json

    return trace_json(found)

"""`moec estimate`, `moec compare` and `moec report`."""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moec.commands.progress import working
from moec.commands.steps import compiled, read
from moec.dsl import Plan, read_plan, vary_plan
from moec.dsl.diagnostics import plan_error

if TYPE_CHECKING:
    from moec.compiler.cost import Estimate, Mend, Requirement
    from moec.compiler.program import Program


def estimate_command(options: argparse.Namespace, started: float) -> int:
    """`moec estimate`: what a plan costs, and whether its bounds are kept; 0 also where they are not."""
    plan = read(options) if not options.json else read_plan(options.plan, options.overrides)
    from moec.compiler.cost import as_record, decide, explain, say_estimate, say_requirements

    program = compiled(plan)
    traced = time.perf_counter()
    found = estimated(plan, program, options)
    requirements = decide(found)
    ended = time.perf_counter()
    if options.trace is not None:
        _write(options.trace, _trace(found))
    if options.explain is not None:
        said = explain(found, options.explain)
        print(json.dumps({"figure": options.explain, "explanation": said.splitlines()}) if options.json else said)
        return 0
    mends = searched(found, options) if options.mend else ()
    if options.json:
        times = {"trace_seconds": round(traced - started, 3), "estimate_seconds": round(ended - traced, 3)}
        print(json.dumps(as_record(found) | requirements_record(requirements, mends) | times))
        return 0
    print(say_estimate(found))
    if requirements:
        print("", *say_requirements(requirements), *said_mends(mends), sep="\n")
    print(f"\ntraced in {traced - started:.1f} s, estimated in {ended - traced:.1f} s")
    return 0


def compare_command(options: argparse.Namespace, _: float) -> int:
    """`moec compare`: several plans side by side."""
    if len(options.plans) < 2:
        raise plan_error("E115", "there is one plan, and nothing to compare it with", "name two plans or more")
    plans = [read_plan(path, options.overrides) for path in options.plans]
    from moec.compiler.cost import as_record, side_by_side

    found = [estimated(plan, compiled(plan), options) for plan in plans]
    if options.json:
        print(json.dumps([{"plan": path} | as_record(each) for path, each in zip(options.plans, found, strict=True)]))
        return 0
    print(side_by_side(options.plans, found))
    return 0


def report_command(options: argparse.Namespace, _: float) -> int:
    """`moec report`: a page with pictures."""
    plan = read(options)
    from moec.compiler.report.report_html import report_html

    found = estimated(plan, compiled(plan), options)
    target = options.output or "report.html"
    _write(target, report_html(found))
    print(f"{target} shows {plan.name} on {found.world_size} ranks")
    return 0


def estimated(plan: Plan, program: "Program", options: argparse.Namespace | None = None) -> "Estimate":
    """The estimate of a program on the plan's machine, under options that say more of either."""
    from moec.compiler.cost import estimate, machine_of, read_routing

    machine = machine_of(plan, tuple(Path(path) for path in options.hardware) if options else ())
    with working(f"estimating {program.world_size} ranks"):
        return estimate(program, machine, read_routing(options.routing if options else "uniform", program))


def searched(found: "Estimate", options: argparse.Namespace | None = None) -> "tuple[Mend, ...]":
    """For every bound that is broken the smallest change that keeps it."""
    from moec.compiler.cost import can_retarget, decide, mend, retarget
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
                return estimated(other, program, options)
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


def _write(path: str, text: str) -> None:
    from moec.commands.replace_file import replace_file

    try:
        replace_file(Path(path), text.encode())
    except OSError as fault:
        help = "name a file in a folder that can be written"
        raise plan_error("E507", f"{path} cannot be written: {fault.strerror}", help) from None

"""The passes, in order: from a plan to the program."""

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace

from moec.compiler.build_model import build_model
from moec.compiler.join_linears import join_linears
from moec.compiler.join_reductions import join_reductions
from moec.compiler.partition_stages import partition_stages
from moec.compiler.program import Program
from moec.compiler.schedule_microbatches import schedule_microbatches
from moec.compiler.split_model import split_model
from moec.compiler.trace import trace
from moec.compiler.type_units import type_units
from moec.dsl.diagnostics import Diagnostic, PlanError
from moec.dsl.plan import Plan

Pass = Callable[[Program], Program]

PASSES: tuple[Pass, ...] = (
    type_units,  # every value gets a type on every axis, coercions where two types meet, regions, and the backward
    join_linears,  # matrices that one value is multiplied by are one product
    join_reductions,  # sums of a backward that do not wait for each other go in one message
    partition_stages,  # the chain of calls in pieces of balanced cost
    schedule_microbatches,  # a list of instructions a stage
)


def compile_plan(plan: Plan, until: str = "") -> Program:
    """The program of a plan, or as it is after the pass `until`; raises PlanError for what only a trace shows."""
    try:
        with redirect_stdout(sys.stderr):  # what a user's module prints is none of what moec says
            return _compile(plan, until)
    except PlanError as fault:
        raise PlanError(_placed(diagnostic, plan) for diagnostic in fault.diagnostics) from fault


def _compile(plan: Plan, until: str) -> Program:
    model = build_model(plan)
    program = split_model(plan, model, trace(model))
    if until == "split_model":
        return program
    for apply in PASSES:
        program = apply(program)
        if apply.__name__ == until:
            break
    return program


def _placed(diagnostic: Diagnostic, plan: Plan) -> Diagnostic:
    """What is said of no place in the plan is said of its model."""
    label = plan.places["model"].label("this model")
    return diagnostic if diagnostic.labels else replace(diagnostic, labels=(label,))

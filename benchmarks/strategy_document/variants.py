"""Estimates of variants of a plan, of which the model is traced once."""

from dataclasses import dataclass, replace
from pathlib import Path

from moec.compiler.cost import Estimate, Practice, can_retarget, estimate, machine_of, retarget
from moec.compiler.cost.step import step_time
from moec.compiler.pipeline import compile_plan
from moec.compiler.program import Program
from moec.dsl import Plan, PlanError, read_plan, vary_plan

EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True, slots=True)
class Traced:
    """A plan with its model as it was traced, before anything is placed."""

    plan: Plan
    program: Program

    def under(self, *settings: str) -> Estimate | None:
        """The estimate under other settings of the same model; None where they make no plan that works."""
        plan = vary_plan(self.plan, settings)
        if plan is None or not can_retarget(self.program, plan):
            return None
        try:
            return estimate(retarget(self.program, plan), machine_of(plan))
        except PlanError:
            return None

    def on(self, found: Estimate, *settings: str) -> Estimate:
        """A variant on another machine: the ranks do the same, and only the times change."""
        plan = vary_plan(self.plan, settings)
        assert plan is not None, f"{settings} make no valid plan"
        machine = machine_of(plan)
        time = step_time(found.program, found.ranks, machine, Practice())
        return replace(found, machine=machine, time=time)


def traced(name: str, *settings: str) -> Traced:
    """An example, `strategy/nearest`, with settings that change its model."""
    plan = read_plan(str(EXAMPLES / f"{name}.plan"), list(settings))
    return Traced(plan, compile_plan(plan, "split_model"))


def under(plan: Traced, *settings: str) -> Estimate:
    found = plan.under(*settings)
    assert found is not None, f"{settings} make no plan that works"
    return found

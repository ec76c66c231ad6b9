"""The plan language: from the text of a `.plan` to a typed, checked Plan, or to diagnostics. Never imports torch."""

from moec.dsl.diagnostics import Diagnostic, PlanError, render
from moec.dsl.plan import Plan
from moec.dsl.read_plan import read_plan, vary_plan

__all__ = ["Diagnostic", "Plan", "PlanError", "read_plan", "render", "vary_plan"]

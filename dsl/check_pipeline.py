"""Checks the pipeline: its axis, its stages, and whether enough micro-batches fill it."""

from moec.dsl.plan import Decoder, Plan
from moec.dsl.report import Report
from moec.dsl.suggest import listed


def check_pipeline(plan: Plan, report: Report) -> None:
    """Report a pipeline axis that is not one plain axis of its own, or that has more stages than there are layers."""
    line = plan.line_of("layers")
    if line is None or plan.pipeline_axis is None:
        return
    place = plan.places["shard.layers"]
    name = plan.pipeline_axis
    why = _why_not_plain(plan, name)
    if len(line.axes) > 1:
        headline, why = f"`layers` goes over {listed(line.axes)}", "stages are ranks along one axis"
        report.error("E212", headline, place.label(why), help=[f"write `layers over {line.axes[0]}`"])
    elif why:
        headline = f"`{name}` cannot be the axis of the pipeline"
        report.error("E212", headline, place.label(why), help=["give the pipeline an axis of its own"])
    else:
        _check_stages(plan, name, report)


def _why_not_plain(plan: Plan, name: str) -> str | None:
    if plan.mesh.axis(name).over:
        return f"`{name}` is a fold"
    folds = [axis.name for axis in plan.mesh.axes if name in axis.over]
    if folds:
        return f"`{folds[0]}` folds over it"
    others = [dim for other in plan.shard for dim in other.dims if name in other.axes and dim != "layers"]
    return f"`{others[0]}` goes over it too" if others else None


def _check_stages(plan: Plan, name: str, report: Report) -> None:
    stages = plan.mesh.axis(name).size
    axis = plan.places[f"mesh.{name}"]
    if isinstance(plan.model, Decoder) and stages > plan.model.layers:
        headline = f"{stages} stages cannot share {plan.model.layers} layers"
        label = axis.label(f"`layers` goes over `{name}`")
        note = plan.places["model.layers"].note(f"{plan.model.layers} layers")
        report.error("E213", headline, label, note, help=[f"`{name}` is at most {plan.model.layers}"])
    elif plan.schedule.kind == "1f1b" and plan.schedule.accumulate < stages:
        micro_batches = plan.schedule.accumulate
        count = f"{micro_batches} micro-batch{'es' if micro_batches > 1 else ''}"
        headline = f"{stages} stages are never busy together: a step has {count}"
        place = plan.places.get("schedule.accumulate") or plan.places["schedule"]
        note = axis.note(f"{stages} stages")
        help = [f"write `accumulate = {stages}` or more"]
        report.warn("W003", headline, place.label(f"`accumulate` is {micro_batches}"), note, help=help)

"""Checks that a step's sequences divide into micro-batches, and each micro-batch over its ranks."""

from moec.dsl.plan import Plan
from moec.dsl.report import Report
from moec.dsl.tilings import divisors


def check_batch(plan: Plan, report: Report) -> None:
    """Report a batch that does not divide, with the values that do."""
    batch, accumulate = plan.schedule.batch, plan.schedule.accumulate
    replicas = plan.mesh.size(plan.axes_of("batch"))
    if batch % (accumulate * replicas) == 0:
        return
    place = plan.places["schedule.batch"]
    notes = [plan.places["schedule.accumulate"].note()] if accumulate > 1 else []
    if batch % accumulate:
        headline = f"{batch} sequences do not divide into {accumulate} micro-batches"
        label = place.label(f"{batch} % {accumulate} = {batch % accumulate}")
    else:
        micro = batch // accumulate
        line = plan.line_of("batch")
        assert line, "without a line there is one replica"
        headline = f"a micro-batch of {micro} sequences does not divide over {replicas} ranks"
        label = place.label(f"{batch} / {accumulate} = {micro}, and {micro} % {replicas} = {micro % replicas}")
        notes += [plan.places[f"mesh.{axis}"].note() for axis in line.axes if plan.mesh.axis(axis).size > 1]
    report.error("E214", headline, label, *notes, help=_remedies(batch, accumulate, replicas))


def _remedies(batch: int, accumulate: int, replicas: int) -> list[str]:
    unit = accumulate * replicas
    below = batch // unit * unit
    near = [f"`batch = {size}`" for size in (below, below + unit) if size]
    help = [f"`batch` is a multiple of {accumulate} * {replicas} = {unit}: write {' or '.join(near)}"]
    if batch % replicas == 0:
        counts = sorted(divisors(batch // replicas), key=lambda count: abs(count - accumulate))[:6]
        listing = ", ".join(str(count) for count in sorted(counts))
        help.append(f"or keep `batch = {batch}`, and take one of these for `accumulate`: {listing}")
    return help

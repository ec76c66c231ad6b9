"""Checks that the learning rate has a course: where its decay ends, and that it falls until then."""

from moec.dsl.plan import Plan
from moec.dsl.report import Report


def check_training(plan: Plan, report: Report) -> None:
    """Report a decay without an end, a warm-up that leaves it no step, and a last rate above the first."""
    train = plan.train
    if train.decay == "constant":
        return
    decay = plan.places["train.decay"]
    if train.steps is None:
        headline = f"a {train.decay} decay has no last step"
        help = ["say at which step the run ends: `steps = 10_000`", "or keep the rate: `decay = constant`"]
        report.error("E111", headline, decay.label("down to `final_lr`, by when?"), help=help)
    elif train.steps <= train.warmup:
        headline = f"the warm-up leaves no step for a {train.decay} decay"
        label = plan.places["train.warmup"].label(f"of {train.steps} steps")
        note = plan.places["train.steps"].note("the decay ends here")
        help = ["make `warmup` less than `steps`", "or take `decay = constant`"]
        report.error("E110", headline, label, note, help=help)
    if train.final_lr > train.lr:
        headline = "the learning rate does not fall to `final_lr`, it rises"
        label = plan.places["train.final_lr"].label(f"above `lr`, which is {train.lr:g}")
        report.error("E110", headline, label, help=["make `final_lr` at most `lr`"])

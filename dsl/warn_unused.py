"""Warns of what a plan says and nothing is done about: not yet, or not in this plan."""

from moec.dsl.plan import Decoder, Plan
from moec.dsl.report import Report
from moec.dsl.suggest import listed

_LATER = ("communicate",)
"""Blocks without effect so far; everything in them is checked."""


def warn_unused(plan: Plan, report: Report) -> None:
    """Warn of blocks and settings without effect."""
    for kind in _LATER:
        if kind in plan.places:
            names = [path.removeprefix(f"{kind}.") for path in plan.places if path.startswith(f"{kind}.")]
            fields = f": {listed(names)}" if names else ""
            label = plan.places[kind].label("read and checked, and nothing more")
            report.warn("W001", f"`{kind}` has no effect yet{fields}", label)
    if plan.train.recompute != "none":
        label = plan.places["train.recompute"].label("every activation is kept")
        report.warn("W001", "`train` has no effect yet: `recompute`", label)
    _warn_of_training(plan, report)
    if isinstance(plan.model, Decoder):
        _warn_of_model(plan, plan.model, report)


def _warn_of_training(plan: Plan, report: Report) -> None:
    if plan.train.decay == "constant":
        _warn(plan, "train.final_lr", "the learning rate is constant", report)
    if plan.train.weight_decay == 0:
        for name in ("decayed", "undecayed"):
            _warn(plan, f"train.{name}", "without `weight_decay` no weight decays", report)


def _warn_of_model(plan: Plan, model: Decoder, report: Report) -> None:
    sparse = model.experts is not None and model.experts.every == 1
    if sparse:
        for name in ("ffn", "gated"):
            _warn(plan, f"model.{name}", "every layer has experts", report)
    if sparse and any("expert_ffn" in line.dims for line in plan.shard):
        _warn(plan, "shard.ffn", "every layer has experts", report)
    if model.experts and model.experts.capacity is None:
        for name in ("min_capacity", "route"):
            _warn(plan, f"model.experts.{name}", "without a capacity no token is dropped", report)


def _warn(plan: Plan, path: str, why: str, report: Report) -> None:
    place = plan.places.get(path)
    if place:
        report.warn("W002", f"`{path.rpartition('.')[2]}` has no effect in this plan", place.label(why))

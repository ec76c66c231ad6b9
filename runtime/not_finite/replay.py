"""Runs a step once more, in which something was not finite, to see where it began. All ranks do so together."""

from collections.abc import Callable
from types import ModuleType

from moec.runtime import communicator
from moec.runtime.not_finite.checked import CheckedRanks, CheckedTape, Notes
from moec.runtime.not_finite.origin import Origin, is_spoilt
from moec.runtime.run import Run

__all__ = ["Origin", "spoilt_weight", "trace"]


def trace(run: Run, program: Callable[[Run], None], stage: ModuleType) -> Origin | None:
    """The first that this rank sees of it, in the step that was not updated; None if it sees nothing."""
    weight = spoilt_weight(run)
    notes = Notes(_layers(run, stage), _names(run, stage))
    ranks = communicator.current()
    families = {family.reduce: _first_gradient(run, family.reduce) for family in run.weights.families}
    communicator.use(CheckedRanks(ranks, notes, families))
    try:
        left = run.replay(program, lambda i: CheckedTape(i, notes), lambda: _left(run))
    finally:
        communicator.use(ranks)
    return weight or notes.first or left


def spoilt_weight(run: Run) -> Origin | None:
    """A weight that was not finite to begin with."""
    for name, shard in run.weights.shards.items():
        if is_spoilt(shard.value, shard.weight.trainable):
            return Origin("weight", f"the weight {name} is not finite", -1, "")
    return None


def _left(run: Run) -> Origin | None:
    """What the step leaves behind, where no instruction has made it."""
    if run.loss_is_spoilt:
        return Origin("came", "the loss is not finite", -1, "")
    for name, shard in run.weights.shards.items():
        if is_spoilt(shard.value.grad):
            return Origin("came", f"the gradient of {name} is not finite", -1, "")
    return None


def _first_gradient(run: Run, family: str) -> Callable[[], str]:
    shards = [shard for shard in run.weights.shards.values() if shard.weight.reduce == family]
    return lambda: next((shard.name for shard in shards if is_spoilt(shard.value.grad)), "a weight")


def _layers(run: Run, stage: ModuleType) -> dict[int, str]:
    units = zip(stage.UNITS, run.weights.units, strict=True)
    return {id(w): prefix or kind for (kind, prefixes), ws in units for prefix, w in zip(prefixes, ws, strict=True)}


def _names(run: Run, stage: ModuleType) -> dict[int, str]:
    """Of weights, and of those that several are read as, by the name that the stage gives them."""
    units = zip(stage.UNITS, run.weights.units, strict=True)
    pairs = [(prefix or kind, w) for (kind, prefixes), ws in units for prefix, w in zip(prefixes, ws, strict=True)]
    named = {id(value): f"{prefix}.{key}" for prefix, w in pairs for key, value in vars(w).items()}
    return named | {id(shard.value): name for name, shard in run.weights.shards.items()}

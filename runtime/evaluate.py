"""The loss of samples that are held out of training: the stages' forward functions, without tapes, on all ranks."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType

import torch
from torch import Tensor

from moec.runtime import routing
from moec.runtime.communicator import WORLD, Slot, current
from moec.runtime.data import Items
from moec.runtime.data.micro_batches import Inputs
from moec.runtime.run import NothingValid, Run
from moec.runtime.tape import Region, Tape

_BATCHES, _EVERY = 10, 100


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Every so many steps, and after the last one, the loss of the first so many held-out samples.

    They are whole batches, and so the same on every mesh and however many micro-batches there are.
    """

    items: Items
    samples: int
    every: int
    last: int

    @staticmethod
    def of(options: argparse.Namespace, items: Items, batch: int) -> "Evaluation":
        """As the command line says, of what is held out."""
        wanted = min(options.eval_samples or _BATCHES * batch, len(items))
        return Evaluation(items, max(1, wanted // batch) * batch, options.eval_every or _EVERY, options.steps)

    def __str__(self) -> str:
        return f"of {self.samples} samples every {self.every} steps and after step {self.last}"

    def due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.last


def held_out_loss(rank: ModuleType, run: Run, evaluation: Evaluation) -> float:
    """The same on all ranks, and on every mesh but for rounding. The run is left as it was. After a step of it."""
    watcher = routing.watching()
    routing.watch(None)
    try:
        looks = [_Look(run, evaluation.items, first) for first in range(0, evaluation.samples, run.job.batch)]
        counts = [count for look in looks for count in _counts(rank.stage, look)]
        for look in looks:
            _forward(rank.stage, look)
        return _mean(run, [loss for look in looks for loss in look.losses], counts, len(looks))
    finally:
        routing.watch(watcher)


class _Look:
    """What a stage's forward takes of a run: of the run its weights, and nothing that a step leaves or changes."""

    def __init__(self, run: Run, items: Items, cursor: int) -> None:
        self.job, self.weights, self.tables = run.job, run.weights, run.tables
        self.losses: list[Tensor] = []
        self.run = run
        self._micro_batches = replace(run.micro_batches, source=items)
        self._cursor = cursor

    def tape(self, i: int) -> Tape:
        return _NoTape()

    def inputs(self, i: int) -> Inputs:
        """Read again where they are asked for again, to be counted and then used, rather than kept."""
        inputs = self._micro_batches.read(self._cursor + i * self._micro_batches.size)
        return {name: x.to(self.run.device) for name, x in inputs.items()}

    def add_loss(self, x: Tensor, same: str = "") -> None:
        if not same or current().coordinate(same) == 0:
            self.losses.append(x)


class _NoTape(Tape):
    """Runs a region and keeps nothing. No rank talks inside of one, so that no gradient mode is open where one does."""

    def run(self, region: Region, *args: object) -> object:
        with torch.no_grad():
            return region(*args)

    def keep(self, *values: object) -> None:
        pass


def _counts(stage: ModuleType, look: _Look) -> Sequence[Tensor]:
    """How many targets of each micro-batch are valid, on those ranks that the step counts as well."""
    if look.job.loss == "mean" or not hasattr(stage, "count"):
        return ()
    same = look.run.counted_once_in
    assert same is not None, "the first step says which ranks count the same targets"
    return stage.count(look) if not same or current().coordinate(same) == 0 else ()


def _forward(stage: ModuleType, look: _Look) -> None:
    """All micro-batches of a batch through this stage."""
    run, previous, following = look.run, look.run.place.previous, look.run.place.next
    slots: Sequence[Slot] = stage.ACTIVATIONS_IN if previous is not None else ()
    for i in range(look.job.accumulate):
        received = () if previous is None else (run.receive(slots, previous),)
        sent = stage.forward(look, i, *received)
        if following is not None:
            run.send(sent, following)


def _mean(run: Run, losses: Sequence[Tensor], counts: Sequence[Tensor], batches: int) -> float:
    """Over the valid targets of all ranks, or over micro-batches whose losses are means already."""
    total = torch.zeros(2, dtype=torch.float64, device=run.device)
    for place, values in enumerate((losses, counts)):
        for x in values:
            total[place] += x
    if current().size(WORLD) > 1:
        current().all_reduce_in_place(total, WORLD, "held-out loss")
    loss, count = total.tolist()
    if run.job.loss == "mean":
        count = batches * run.job.accumulate
    if not count:
        raise NothingValid("no target of the held-out samples is valid")
    return loss / count

"""What sparse layers decided: noted while programs run, and compared token by token with the unsharded model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from moec.compiler.placement import Axes
from moec.compiler.program import Compute, Program, Value
from moec.compiler.reference.experts import Routing
from moec.compiler.verify.shrink import Trial
from moec.runtime.routing import watch

_DECIDES = ("moec.route", "moec.runtime.routing.choose")
"""Operators that choose experts; the second output is the choice."""


@dataclass(frozen=True, slots=True)
class Compared:
    """How many choices of experts there are, and the first that is another. None where they cannot be compared."""

    choices: int | None
    faults: tuple[str, ...] = ()


@contextmanager
def deciding(noted: list[Routing]) -> Iterator[None]:
    """Append what routing decides in this context."""
    watch(_Notes(noted))
    try:
        yield
    finally:
        watch(None)


@dataclass(frozen=True, slots=True)
class _Notes:
    noted: list[Routing]

    def chosen(self, expert: Tensor) -> None:
        self.noted.append(Routing(expert.detach().clone(), torch.ones_like(expert, dtype=torch.bool)))

    def kept(self, kept: Tensor) -> None:
        self.noted[-1] = Routing(self.noted[-1].expert, kept.detach().clone())


def compare_decisions(trial: Trial, expected: Sequence[Routing], ranks: Sequence[Sequence[Routing]]) -> Compared:
    """Every decision of every rank with that of the unsharded model, for the same token; equal means the same integers.

    Both lists are in the order of micro-batches, and then of the layers. A program that a person edited may decide in
    another way than by these functions; then there is nothing to compare.
    """
    layers = [_layers(trial, stage) for stage in range(len(trial.loops))]
    total = sum(len(found) for found in layers)
    if total == 0:
        return Compared(0)
    batches, rest = divmod(len(expected), total)
    stages = [trial.program.stage_of(rank) for rank in range(len(ranks))]
    if rest or any(len(mine) != batches * len(layers[stage]) for mine, stage in zip(ranks, stages, strict=True)):
        return Compared(None)
    accumulate = trial.program.plan.schedule.accumulate
    found: list[tuple[int, str]] = []
    for rank, (mine, stage) in enumerate(zip(ranks, stages, strict=True)):
        before = sum(len(each) for each in layers[:stage])
        for number, decision in enumerate(mine):
            batch, layer = divmod(number, len(layers[stage]))
            name, choice = layers[stage][layer]
            order = batch * total + before + layer
            fault = _difference(trial.program, rank, choice, decision, expected[order])
            if fault:
                step, microbatch = divmod(batch, accumulate)
                found.append((order, f"{name} on rank {rank}, step {step + 1}, micro-batch {microbatch}: {fault}"))
                break
    choices = sum(decision.expert.numel() for mine in ranks for decision in mine)
    return Compared(choices, (min(found)[1],) if found else ())


def _difference(program: Program, rank: int, choice: Value, mine: Routing, true: Routing) -> str:
    batch, positions, _ = choice.placement.split
    rows, columns = (
        _part(program, rank, size, axes) for size, axes in zip(true.expert.shape[:2], (batch, positions), strict=True)
    )
    expert, kept = true.expert[rows, columns], true.kept[rows, columns]
    if expert.shape != mine.expert.shape:
        return f"decides on {list(mine.expert.shape)} choices, and {list(expert.shape)} are its own"
    wrong = ((expert != mine.expert) | (kept != mine.kept)).nonzero()
    if not len(wrong):
        return ""
    sample, position, k = wrong[0].tolist()
    where = f"sequence {rows.start + sample}, position {columns.start + position}, choice {k + 1}"
    said = (_said(d, sample, position, k) for d in (mine, Routing(expert, kept)))
    return f"{where} is {' and in the unsharded model '.join(said)}"


def _said(decision: Routing, sample: int, position: int, k: int) -> str:
    kept = "" if decision.kept[sample, position, k] else ", dropped"
    return f"expert {int(decision.expert[sample, position, k])}{kept}"


def _layers(trial: Trial, stage: int) -> list[tuple[str, Value]]:
    """Module path and choice of every routing of a forward of the stage, in order."""
    found: list[tuple[str, Value]] = []
    for call in trial.calls(stage):
        unit = trial.program.units[call.unit]
        ops = [op for item in unit.forward if isinstance(item, Compute) for op in item.ops if op.target in _DECIDES]
        found += [(call.prefix or unit.name, unit.values[op.outputs[1]]) for op in ops]
    return found


def _part(program: Program, rank: int, size: int, axes: Axes) -> slice:
    each = size // program.plan.mesh.size(axes)
    start = program.plan.mesh.index(rank, axes) * each
    return slice(start, start + each)

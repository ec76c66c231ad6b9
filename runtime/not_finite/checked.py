"""A tape and a communicator that look at every operand and every result."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from torch import Tensor
from torch.nn import Parameter

from moec.runtime.communicator import Communicator, Op, Slot, Splits, Started
from moec.runtime.not_finite.origin import Kind, Origin, is_spoilt
from moec.runtime.tape import Region, Tape
from moec.runtime.watch.sight import instruction

_RUNTIME = str(Path(__file__).parents[1])


@dataclass(slots=True)
class Notes:
    """The first that one rank sees; what comes after it may come from it."""

    layers: Mapping[int, str]  # by identity of what a unit's functions call `w`
    weights: Mapping[int, str]  # full names, by identity
    first: Origin | None = None
    micro_batch: int = -1  # of the tape that was last used

    def note(self, kind: Kind, what: str) -> None:
        if self.first is None:
            frame = _emitted(sys._getframe(1))
            self.first = Origin(kind, what, self.micro_batch, instruction(frame.f_code.co_filename, frame.f_lineno))

    def layer(self) -> str:
        """Of the unit whose forward calls, or ""."""
        return self.layers.get(id(_emitted(sys._getframe(1)).f_locals.get("w")), "")


class CheckedTape(Tape):
    """Says of which region the first result was that is not finite, though its operands were."""

    __slots__ = ("_layers", "_micro_batch", "_notes")

    def __init__(self, micro_batch: int, notes: Notes) -> None:
        super().__init__()
        self._micro_batch = micro_batch
        self._notes = notes
        self._layers: list[str] = []  # of what the tape has

    def run(self, region: Region, *args: object):
        layer = self._enter()
        self._layers.append(layer)
        where = f"forward of {_region(region, layer)}"
        if any(is_spoilt(x, _carries(x)) for x in args):
            self._notes.note("came", f"what goes into the {where} is not finite, though no instruction made it so")
        result = super().run(region, *args)
        results = result if isinstance(result, tuple) else (result,)
        for n, x in enumerate(results):
            if is_spoilt(x, _carries(x)):
                self._notes.note("made", f"{_result(n, results)}the {where} is not finite, its operands are")
        return result

    def back(self, region: Region, *gradients: Tensor | None):
        self._enter()
        where = f"backward of {_region(region, self._layers.pop() if self._layers else '')}"
        if any(is_spoilt(x) for x in gradients):
            self._notes.note("came", f"what goes into the {where} is not finite, though no instruction made it so")
        weights = self._weights()
        before = [is_spoilt(weight.grad) for weight in weights]
        found = super().back(region, *gradients)
        if any(is_spoilt(x) for x in (found if isinstance(found, tuple) else (found,))):
            self._notes.note("made", f"a gradient that the {where} makes is not finite, its operands are")
        for weight, was in zip(weights, before, strict=True):
            if not was and is_spoilt(weight.grad):
                name = self._notes.weights.get(id(weight), "a weight")
                self._notes.note("made", f"the gradient of {name} in the {where} is not finite, its operands are")
        return found

    def keep(self, *values: object) -> None:
        self._layers.append("")
        super().keep(*values)

    def kept(self) -> object:
        self._layers.pop()
        return super().kept()

    def _enter(self) -> str:
        self._notes.micro_batch = self._micro_batch
        return self._notes.layer()

    def _weights(self) -> list[Parameter]:
        entry = self._stack[-1] if self._stack else None
        return entry[2] if isinstance(entry, tuple) else []


@dataclass(slots=True)
class _Checked:
    """A collective under way, whose operand was finite or not."""

    started: Started
    look: Callable[[Tensor], None]

    def wait(self) -> Tensor:
        result = self.started.wait()
        self.look(result)
        return result


@dataclass(slots=True)
class CheckedRanks:
    """Satisfies `Communicator`, by another one."""

    ranks: Communicator
    notes: Notes
    families: Mapping[str, Callable[[], str]] = field(default_factory=dict)  # the first weight of each that is spoilt

    @property
    def rank(self) -> int:
        return self.ranks.rank

    def size(self, axes: str) -> int:
        return self.ranks.size(axes)

    def coordinate(self, axes: str) -> int:
        return self.ranks.coordinate(axes)

    def all_reduce(self, x: Tensor, axes: str, op: Op, name: str, later: bool) -> Started:
        if op == "max":  # of what has no gradient, and may be masked
            return self.ranks.all_reduce(x, axes, op, name, later)
        return self._checked(x, "all_reduce", axes, self.ranks.all_reduce(x, axes, op, name, later))

    def all_reduce_in_place(self, x: Tensor, axes: str, name: str) -> None:
        if is_spoilt(x):
            self.notes.note("came", f"the gradient of {self.families[axes]()} is not finite")
        self.ranks.all_reduce_in_place(x, axes, name)
        self._arrived(x, "all_reduce", axes)

    def all_gather(self, x: Tensor, axes: str, name: str, later: bool) -> Started:
        return self._checked(x, "all_gather", axes, self.ranks.all_gather(x, axes, name, later))

    def reduce_scatter(self, x: Tensor, axes: str, name: str, later: bool) -> Started:
        return self._checked(x, "reduce_scatter", axes, self.ranks.reduce_scatter(x, axes, name, later))

    def all_to_all(self, x: Tensor, axes: str, splits: Splits | None, name: str, later: bool) -> Started:
        return self._checked(x, "all_to_all", axes, self.ranks.all_to_all(x, axes, splits, name, later))

    def send(self, tensors: Sequence[Tensor], rank: int) -> None:
        self._leaving(tensors)
        self.ranks.send(tensors, rank)

    def receive(self, slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        return self._from(rank, self.ranks.receive(slots, rank))

    def exchange(self, tensors: Sequence[Tensor], slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        self._leaving(tensors)
        return self._from(rank, self.ranks.exchange(tensors, slots, rank))

    def _checked(self, x: Tensor, kind: str, axes: str, started: Started) -> Started:
        if is_spoilt(x):
            self.notes.note("came", f"what goes into this {kind} is not finite, though no instruction made it so")
        return _Checked(started, lambda result: self._arrived(result, kind, axes))

    def _arrived(self, x: Tensor, kind: str, axes: str) -> None:
        if is_spoilt(x):
            self.notes.note("arrived", f"the result of this {kind} over {axes} is not finite, what all give into it is")

    def _leaving(self, tensors: Sequence[Tensor]) -> None:
        if any(is_spoilt(x) for x in tensors):
            self.notes.note("came", "what is sent is not finite, though no instruction made it so")

    def _from(self, rank: int, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if any(is_spoilt(x) for x in tensors):
            self.notes.note("arrived", f"what rank {rank} sends is not finite")
        return tensors


def _carries(x: object) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _region(region: Region, layer: str) -> str:
    name = region.__name__ if hasattr(region, "__name__") else repr(region)
    return f"region `{name}`{f' of {layer}' if layer else ''}"


def _result(n: int, results: Sequence[object]) -> str:
    return "the result of " if len(results) == 1 else f"result {n + 1} of {len(results)} of "


def _emitted(frame: FrameType) -> FrameType:
    """The innermost outside of the runtime."""
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_RUNTIME):
        frame = frame.f_back
    return frame

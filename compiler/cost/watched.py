"""The tape and the communicator of a rank that is watched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from moec.compiler.cost.recorder import Recorder, Talk
from moec.runtime.communicator import WORLD, Op, Slot, Splits
from moec.runtime.tape import Region, Tape


class WatchedTape(Tape):
    """A tape that says which region runs."""

    __slots__ = ("_recorder",)

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def run(self, region: Region, *args: object) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._recorder.region = _name(region)
        result = super().run(region, *args)  # pyright: ignore[reportCallIssue, reportArgumentType]
        self._recorder.region = ""
        return result

    def back(self, region: Region, *gradients: Tensor | None) -> Tensor | tuple[Tensor, ...] | None:
        self._recorder.region = _name(region)
        result = super().back(region, *gradients)
        self._recorder.region = ""
        return result


@dataclass(frozen=True, slots=True)
class _Done:
    value: Tensor

    def wait(self) -> Tensor:
        return self.value


@dataclass(frozen=True, slots=True)
class Watcher:
    """A communicator that notes what is asked of it, and gives tensors of the right shape.

    Satisfies `Communicator`.
    """

    recorder: Recorder
    rank: int
    groups: Mapping[str, tuple[int, ...]]
    world: int

    def size(self, axes: str) -> int:
        return self.world if axes == WORLD else len(self.groups[axes])

    def coordinate(self, axes: str) -> int:
        return self.rank if axes == WORLD else self.groups[axes].index(self.rank)

    def all_reduce(self, x: Tensor, axes: str, op: Op, name: str, later: bool) -> _Done:
        return self._talk("all_reduce", x, axes, len(x) if x.dim() else None, later)

    def all_reduce_in_place(self, x: Tensor, axes: str, name: str) -> None:
        self.recorder.add(Talk("all_reduce", axes, x.nbytes, name))

    def all_gather(self, x: Tensor, axes: str, name: str, later: bool) -> _Done:
        return self._talk("all_gather", x, axes, len(x) * self.size(axes), later)

    def reduce_scatter(self, x: Tensor, axes: str, name: str, later: bool) -> _Done:
        return self._talk("reduce_scatter", x, axes, len(x) // self.size(axes), later)

    def all_to_all(self, x: Tensor, axes: str, splits: Splits | None, name: str, later: bool) -> _Done:
        return self._talk("all_to_all", x, axes, sum(splits.receive) if splits else len(x), later)

    def _talk(self, kind: str, x: Tensor, axes: str, rows: int | None, later: bool) -> _Done:
        if not x.is_meta:
            self.recorder.add(Talk(kind, axes, x.nbytes, self.recorder.region, later))
            return _Done(self._answered(kind, x, axes))
        x = x.contiguous()
        result = x.new_empty(x.shape if rows is None else (rows, *x.shape[1:]))
        ends = self.recorder.number(result), result.nbytes
        self.recorder.add(Talk(kind, axes, x.nbytes, self.recorder.region, later, *ends))
        return _Done(result)

    def _answered(self, kind: str, x: Tensor, axes: str) -> Tensor:
        """Numbers of rows, as all ranks have them: those that come here are `skew` times as many."""
        if kind == "all_gather":
            return x.repeat(self.size(axes), *[1] * (x.dim() - 1))
        return (x * self.recorder.skew).to(x.dtype) if kind == "all_to_all" else x.clone()

    def send(self, tensors: Sequence[Tensor], rank: int) -> None:
        raise NotImplementedError("only a micro-batch of one stage is watched")

    def receive(self, slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        raise NotImplementedError("only a micro-batch of one stage is watched")

    def exchange(self, tensors: Sequence[Tensor], slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        raise NotImplementedError("only a micro-batch of one stage is watched")


def _name(region: Region) -> str:
    return region.__name__ if hasattr(region, "__name__") else type(region).__name__

"""A communicator for one rank alone: every other rank is taken to hold what this one holds.

Values are of no interest here, but shapes are, and the numbers of ragged rows; under this assumption all fit together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moec.runtime.communicator import WORLD, Op, Slot, Splits


@dataclass(frozen=True, slots=True)
class Arrived:
    """What a collective gives at once."""

    value: Tensor

    def wait(self) -> Tensor:
        return self.value


@dataclass(frozen=True, slots=True)
class OneRank:
    """`groups` are this rank's, by name."""

    rank: int
    groups: Mapping[str, tuple[int, ...]]

    def size(self, axes: str) -> int:
        return 1 if axes == WORLD else len(self.groups[axes])

    def coordinate(self, axes: str) -> int:
        return 0 if axes == WORLD else self.groups[axes].index(self.rank)

    def all_reduce(self, x: Tensor, axes: str, op: Op, name: str, later: bool) -> Arrived:
        return Arrived(x.clone())

    def all_reduce_in_place(self, x: Tensor, axes: str, name: str) -> None:
        pass

    def all_gather(self, x: Tensor, axes: str, name: str, later: bool) -> Arrived:
        return Arrived(torch.cat([x] * self.size(axes)))

    def reduce_scatter(self, x: Tensor, axes: str, name: str, later: bool) -> Arrived:
        return Arrived(self._own(x, axes).clone())

    def all_to_all(self, x: Tensor, axes: str, splits: Splits | None, name: str, later: bool) -> Arrived:
        if splits is None:
            return Arrived(torch.cat([self._own(x, axes)] * self.size(axes)))
        rows = sum(splits.receive)
        return Arrived(x.new_ones(rows, *x.shape[1:]))

    def send(self, tensors: Sequence[Tensor], rank: int) -> None:
        raise AssertionError("a stage alone has no neighbour")

    def receive(self, slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        raise AssertionError("a stage alone has no neighbour")

    def exchange(self, tensors: Sequence[Tensor], slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        raise AssertionError("a stage alone has no neighbour")

    def _own(self, x: Tensor, axes: str) -> Tensor:
        return x.chunk(self.size(axes))[self.coordinate(axes)]

"""What every contestant trains: sizes, the mesh's coordinates, initial values and data. Only this file knows moec."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Protocol

import torch
from torch import Tensor

from moec.runtime.data import Source
from moec.runtime.initial import Initial

AXES = ("pp", "dp", "ep", "tp")


@dataclass(frozen=True, slots=True)
class Sizes:
    """A decoder with top-1 experts of two matrices in every layer, capacity per sequence, head not tied."""

    layers: int
    hidden: int
    heads: int
    vocab: int
    seq: int
    experts: int
    expert_ffn: int
    capacity: Fraction
    batch: int  # sequences of a step
    accumulate: int  # micro-batches of a step
    lr: float = 3e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip: float | None = None
    norm_eps: float = 1e-5
    rope_base: float = 10_000.0
    seed: int = 0

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def rows(self) -> int:
        """Of one sequence, those that an expert takes at most."""
        return ceil(Fraction(self.seq, self.experts) * self.capacity)

    @property
    def tokens(self) -> int:
        return self.batch * self.seq


@dataclass(frozen=True, slots=True)
class Where:
    """One rank's place on the mesh; the last axis varies fastest, and sequences go over dp and ep, dp first."""

    size: Mapping[str, int]
    at: Mapping[str, int]

    @staticmethod
    def of(rank: int, mesh: Mapping[str, int]) -> "Where":
        at, rest = {}, rank
        for axis, size in reversed(mesh.items()):
            rest, at[axis] = divmod(rest, size)
        return Where({axis: mesh.get(axis, 1) for axis in AXES}, {axis: at.get(axis, 0) for axis in AXES})

    @property
    def replicas(self) -> int:
        return self.size["dp"] * self.size["ep"]

    @property
    def replica(self) -> int:
        return self.at["dp"] * self.size["ep"] + self.at["ep"]

    def layers(self, sizes: Sizes) -> range:
        """Those of this rank's stage."""
        count = sizes.layers // self.size["pp"]
        return range(self.at["pp"] * count, (self.at["pp"] + 1) * count)

    def part(self, axis: str, size: int) -> slice:
        count = size // self.size[axis]
        return slice(self.at[axis] * count, (self.at[axis] + 1) * count)


def groups_over(axes: tuple[str, ...], mesh: Mapping[str, int], world: int) -> list[list[int]]:
    """The ranks that differ in these axes only, for all ranks."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for rank in range(world):
        at = Where.of(rank, mesh).at
        groups.setdefault(tuple(at[axis] for axis in AXES if axis not in axes), []).append(rank)
    return list(groups.values())


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of one step; a rank reads its own."""

    source: Source
    step: int

    def read(self, i: int, where: Where, sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Tokens and labels [B, T] of this rank in micro-batch i."""
        whole = sizes.batch // sizes.accumulate
        count = whole // where.replicas
        first = self.step * sizes.batch + i * whole + where.replica * count
        samples = [self.source.sample(first + n) for n in range(count)]
        return torch.stack([s["tokens"] for s in samples]), torch.stack([s["labels"] for s in samples])


def initial(sizes: Sizes, name: str, shape: tuple[int, ...], where: tuple[slice, ...] | None = None) -> Tensor:
    """A slice of a weight's initial values, float32."""
    init = "ones" if name.endswith("norm.weight") else "normal 0.02"
    return Initial(sizes.seed)(name, shape, init, where or tuple(slice(0, size) for size in shape)).float()


class Rival(Protocol):
    def setup(self, rank: int, world: int, mesh: Mapping[str, int], sizes: Sizes) -> None:
        """Make groups, weights and optimizer; torch.distributed is initialised. All ranks call it together."""
        ...

    def step(self, batch: Batch) -> float:
        """One optimizer step; the mean loss over all tokens, the same on all ranks."""
        ...

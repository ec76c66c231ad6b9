"""The model as the compiler sees it: one module at several sizings, and what its dims are called."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

Sizing = Mapping[str, int]
"""A size for every symbol of the plan."""


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that the model takes: its size in every sizing, and the logical dims that it has."""

    name: str
    kind: str  # tokens, labels, float or int
    dims: tuple[str | None, ...]
    sizes: tuple[tuple[int, ...], ...]
    below: tuple[int | None, ...]

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.kind == "float" else torch.int64


@dataclass(frozen=True, slots=True)
class Model:
    """A module at several sizings (the plan's, small, odd), of one structure, and what its dims are called."""

    modules: tuple[nn.Module, ...]
    sizings: tuple[Sizing, ...]
    inputs: tuple[Input, ...]
    patterns: tuple[tuple[str, tuple[str | None, ...]], ...]
    initial: tuple[tuple[str, str], ...]
    padded: frozenset[str] = frozenset()  # logical dims that need not divide: what is added to them has no effect

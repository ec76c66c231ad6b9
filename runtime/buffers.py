"""Flat buffers for the weights of a rank and their gradients, one of each per family of reduction.

A family is the weights whose gradients are summed over one group at the end of the step. Its buffers have an order
that is the same on every rank of the group, so that the sum is one collective and the optimizer works on whole
buffers. Weights that are treated alike lie in one block.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod

import torch
from torch import Tensor
from torch.nn import Parameter

from moec.runtime.place import Axes, Place
from moec.runtime.shard import Shard, Weight, Where, is_owner, where_of

_ALIGNMENT = 16  # elements; the start of every weight in its buffer


@dataclass(frozen=True, slots=True)
class Block:
    """A run of a family's buffers in which all weights are treated alike."""

    values: Tensor
    gradients: Tensor
    decay: bool
    owned: bool  # of all ranks that have these weights, this is the one that counts them in the norm


@dataclass(frozen=True, slots=True)
class Family:
    """The weights whose gradients are summed over one group, flat."""

    reduce: str
    values: Tensor
    gradients: Tensor
    blocks: tuple[Block, ...]


def allocate(
    named: Mapping[str, Weight], place: Place, dtype: torch.dtype, device: torch.device
) -> tuple[dict[str, Shard], tuple[Family, ...]]:
    """This rank's shards of the weights, by full name, all zero, and the families of those that are trained."""
    values: dict[str, Tensor] = {}
    families = []
    for reduce in sorted({weight.reduce for weight in named.values() if weight.trainable}):
        members = {name: weight for name, weight in named.items() if weight.trainable and weight.reduce == reduce}
        family, parameters = _family(reduce, members, place, dtype, device)
        families.append(family)
        values |= parameters
    shards = {}
    for name, weight in named.items():
        where = where_of(weight, place)
        if weight.trainable:
            value = values[name]
        else:
            value = torch.zeros(_sizes(where), dtype=weight.dtype or dtype, device=device)
        shards[name] = Shard(name, weight, where, value)
    return shards, tuple(families)


def _family(
    reduce: str, members: Mapping[str, Weight], place: Place, dtype: torch.dtype, device: torch.device
) -> tuple[Family, dict[str, Parameter]]:
    """Lay the members out by treatment, then by name: an order that all ranks of the group have."""
    order = sorted(members, key=lambda name: (_treatment(members[name]), name))
    sizes = {name: _sizes(where_of(members[name], place)) for name in order}
    spans: dict[str, slice] = {}
    end = 0
    for name in order:
        start, end = end, end + -(-prod(sizes[name]) // _ALIGNMENT) * _ALIGNMENT
        spans[name] = slice(start, end)
    values = torch.zeros(end, dtype=dtype, device=device)
    gradients = torch.zeros(end, dtype=torch.float32 if dtype is torch.bfloat16 else dtype, device=device)
    blocks = []
    for _, run in groupby(order, key=lambda name: _treatment(members[name])):
        first, *others = run
        span = slice(spans[first].start, spans[others[-1] if others else first].stop)
        blocks.append(Block(values[span], gradients[span], members[first].decay, is_owner(members[first], place)))
    parameters = {name: _parameter(values[span], gradients[span], sizes[name]) for name, span in spans.items()}
    return Family(reduce, values, gradients, tuple(blocks)), parameters


def _parameter(values: Tensor, gradients: Tensor, sizes: tuple[int, ...]) -> Parameter:
    """The front of a stretch of both buffers, as a weight and its gradient."""
    count = prod(sizes)
    parameter = Parameter(values[:count].view(sizes))
    parameter.grad_dtype = gradients.dtype
    parameter.grad = gradients[:count].view(sizes)
    return parameter


def _treatment(weight: Weight) -> tuple[bool, Axes]:
    """What the optimizer and the norm go by: does it decay, and who owns it."""
    return not weight.decay, tuple(sorted({axis for axes in weight.split for axis in axes}))


def _sizes(where: Where) -> tuple[int, ...]:
    return tuple([part.stop - part.start for part in where])

"""Flat buffers for the weights of a rank and their gradients, one of each per family of reduction.

A family is the weights whose gradients are summed over one group at the end of the step. Its buffers have an order
that is the same on every rank of the group, so that the sum is one collective and the optimizer works on whole
buffers. Weights that are treated alike lie in one block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
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
    named: Mapping[str, Weight],
    side_by_side: Sequence[tuple[str, ...]],
    place: Place,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[dict[str, Shard], tuple[Family, ...]]:
    """This rank's shards of the weights, by full name, all zero, and the families of those that are trained.

    Those that are to lie `side_by_side` do, in this order and with nothing between them, as `stacked` needs it.
    """
    values: dict[str, Tensor] = {}
    families = []
    for reduce in sorted({weight.reduce for weight in named.values() if weight.trainable}):
        members = {name: weight for name, weight in named.items() if weight.trainable and weight.reduce == reduce}
        family, parameters = _family(reduce, members, side_by_side, place, dtype, device)
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


def stacked(weights: Sequence[Tensor]) -> Parameter:
    """Weights that lie side by side [rows_i, ...] as one weight [sum(rows_i), ...], which shares their memory."""
    first = weights[0]
    assert first.grad is not None
    sizes = (sum(len(weight) for weight in weights), *first.shape[1:])
    for weight, after in pairwise(weights):
        assert weight.grad is not None and after.grad is not None
        assert _follows(weight, after) and _follows(weight.grad, after.grad), "not side by side"
    parameter = Parameter(first.detach().as_strided(sizes, first.stride()))
    parameter.grad_dtype = first.grad.dtype
    parameter.grad = first.grad.as_strided(sizes, first.stride())
    return parameter


def _follows(x: Tensor, after: Tensor) -> bool:
    """Does the one end in memory where the other begins? Asked without addresses, which a meta tensor has none of."""
    together = x.untyped_storage()._cdata == after.untyped_storage()._cdata
    return together and x.storage_offset() + x.numel() == after.storage_offset()


def _family(
    reduce: str,
    members: Mapping[str, Weight],
    side_by_side: Sequence[tuple[str, ...]],
    place: Place,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Family, dict[str, Parameter]]:
    """Lay the members out by treatment, then by name: an order that all ranks of the group have."""
    together = {name: names for names in side_by_side for name in names}
    runs = dict.fromkeys(together.get(name, (name,)) for name in members)
    order = sorted(runs, key=lambda names: (_treatment(members[names[0]]), names[0]))
    sizes = {name: _sizes(where_of(weight, place)) for name, weight in members.items()}
    starts: dict[str, int] = {}
    ends: dict[str, int] = {}  # with what is added after a run
    end = 0
    for names in order:
        for name in names:
            starts[name] = end
            end += prod(sizes[name])
            ends[name] = end
        end += -end % _ALIGNMENT
        ends[names[-1]] = end
    values = torch.zeros(end, dtype=dtype, device=device)
    gradients = torch.zeros(end, dtype=torch.float32 if dtype is torch.bfloat16 else dtype, device=device)
    blocks = []
    for _, alike in groupby(starts, key=lambda name: _treatment(members[name])):
        first, *others = alike
        span = slice(starts[first], ends[others[-1] if others else first])
        block = Block(values[span], gradients[span], bool(members[first].decay), is_owner(members[first], place))
        blocks.append(block)
    parameters = {name: _parameter(values[start:], gradients[start:], sizes[name]) for name, start in starts.items()}
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
    return not weight.decay, tuple(sorted(weight.axes))


def _sizes(where: Where) -> tuple[int, ...]:
    return tuple([part.stop - part.start for part in where])

"""Collectives as the emitted text calls them: on a named group of mesh axes, along any dim, out of place.

None is differentiable: the transposed collective stands in the emitted backward. A result carries a gradient
(requires_grad) where its operand does, so that the tape knows which values to differentiate. In a group of one rank
a collective is the identity and no call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from moec.runtime.communicator import Op, Started, current

_SMALL = 1 << 20  # bytes that are copied into one message


@dataclass(slots=True)
class Pending:
    """A collective that was started and not yet waited for."""

    started: Started
    arrange: Callable[[Tensor], Tensor] | None  # puts the result's blocks in place
    grad: bool


@dataclass(frozen=True, slots=True)
class _Done:
    """What a collective in a group of one has started."""

    value: Tensor

    def wait(self) -> Tensor:
        return self.value


def wait(pending: Pending) -> Tensor:
    """The result of a collective that was started."""
    result = pending.started.wait()
    if pending.arrange is not None:
        result = pending.arrange(result)
    return result.requires_grad_() if pending.grad else result


def all_reduce(x: Tensor, axes: str, name: str = "") -> Tensor:
    """The sum of everyone's x.  P -> I, P -> R, and I -> R backward."""
    return activation(x) if current().size(axes) == 1 else wait(_all_reduce(x, axes, "sum", name, later=False))


def all_reduce_max(x: Tensor, axes: str, name: str = "") -> Tensor:
    """The element-wise maximum of everyone's x.  P(max) -> I."""
    return activation(x) if current().size(axes) == 1 else wait(_all_reduce(x, axes, "max", name, later=False))


def all_gather(x: Tensor, axes: str, dim: int, name: str = "") -> Tensor:
    """Everyone's x, concatenated along dim in group order.  S(dim) -> R, S(dim) -> I."""
    return activation(x) if current().size(axes) == 1 else wait(_all_gather(x, axes, dim, name, later=False))


def reduce_scatter(x: Tensor, axes: str, dim: int, name: str = "") -> Tensor:
    """This rank's slice of dim of the sum of everyone's x.  P -> S(dim)."""
    return activation(x) if current().size(axes) == 1 else wait(_reduce_scatter(x, axes, dim, name, later=False))


def all_to_all(x: Tensor, axes: str, split: int, join: int, name: str = "") -> Tensor:
    """Block j of dim `split` goes to member j; arrivals are concatenated along `join`.  S(join) -> S(split)."""
    return activation(x) if current().size(axes) == 1 else wait(_all_to_all(x, axes, split, join, name, later=False))


def all_reduce_together(values: Sequence[Tensor], axes: str, name: str = "") -> tuple[Tensor, ...]:
    """`all_reduce` of each, in one message where they are small enough that a message costs more than a copy."""
    alike = len({x.dtype for x in values}) == 1 and sum(x.nbytes for x in values) <= _SMALL
    if not alike or current().size(axes) == 1:
        return tuple([all_reduce(x, axes, name) for x in values])
    packed = torch.cat([x.detach().reshape(-1) for x in values])
    total = current().all_reduce(packed, axes, "sum", name, False).wait()
    parts = total.split([x.numel() for x in values])
    return tuple([_like(part.view(x.shape), x) for part, x in zip(parts, values, strict=True)])


def all_reduce_start(x: Tensor, axes: str, name: str = "") -> Pending:
    return _identity(x) if current().size(axes) == 1 else _all_reduce(x, axes, "sum", name, later=True)


def all_reduce_max_start(x: Tensor, axes: str, name: str = "") -> Pending:
    return _identity(x) if current().size(axes) == 1 else _all_reduce(x, axes, "max", name, later=True)


def all_gather_start(x: Tensor, axes: str, dim: int, name: str = "") -> Pending:
    return _identity(x) if current().size(axes) == 1 else _all_gather(x, axes, dim, name, later=True)


def reduce_scatter_start(x: Tensor, axes: str, dim: int, name: str = "") -> Pending:
    return _identity(x) if current().size(axes) == 1 else _reduce_scatter(x, axes, dim, name, later=True)


def all_to_all_start(x: Tensor, axes: str, split: int, join: int, name: str = "") -> Pending:
    return _identity(x) if current().size(axes) == 1 else _all_to_all(x, axes, split, join, name, later=True)


def take(x: Tensor, axes: str, dim: int) -> Tensor:
    """This rank's slice of dim, a view.  I -> S(dim), R -> S(dim)."""
    ranks = current()
    n = _block(x, dim, ranks.size(axes))
    part = x.detach().narrow(dim, ranks.coordinate(axes) * n, n)
    return _like(part, x)


def spread(x: Tensor, axes: str, dim: int) -> Tensor:
    """x at this rank's place in zeros.  S(dim) -> P."""
    ranks = current()
    size = ranks.size(axes)
    if size == 1:
        return activation(x)
    n = x.shape[dim]
    shape = list(x.shape)
    shape[dim] = size * n
    whole = x.new_zeros(shape)
    whole.narrow(dim, ranks.coordinate(axes) * n, n).copy_(x.detach())
    return _like(whole, x)


def first(x: Tensor, axes: str) -> Tensor:
    """x on the group's first member, zeros on the others.  I -> P, R -> P, R -> I backward."""
    if current().coordinate(axes) == 0:
        return activation(x)
    return _like(x.new_zeros(x.shape), x)


def coordinate(axes: str) -> int:
    """This rank's index in the group."""
    return current().coordinate(axes)


def group_size(axes: str) -> int:
    return current().size(axes)


def activation(x: Tensor) -> Tensor:
    """x itself; of a weight an alias whose gradient goes to the caller instead of into the weight's."""
    return x.detach().requires_grad_(x.requires_grad) if type(x) is Parameter else x


def _all_reduce(x: Tensor, axes: str, op: Op, name: str, later: bool) -> Pending:
    return Pending(current().all_reduce(x.detach(), axes, op, name, later), None, x.requires_grad)


def _all_gather(x: Tensor, axes: str, dim: int, name: str, later: bool) -> Pending:
    ranks = current()
    size, dim = ranks.size(axes), dim % x.dim()
    started = ranks.all_gather(x.detach(), axes, name, later)
    return Pending(started, (lambda y: _joined(y, size, dim)) if dim else None, x.requires_grad)


def _reduce_scatter(x: Tensor, axes: str, dim: int, name: str, later: bool) -> Pending:
    ranks = current()
    blocks = _cut(x, ranks.size(axes), dim)
    return Pending(ranks.reduce_scatter(blocks, axes, name, later), None, x.requires_grad)


def _all_to_all(x: Tensor, axes: str, split: int, join: int, name: str, later: bool) -> Pending:
    ranks = current()
    size, join = ranks.size(axes), join % x.dim()
    started = ranks.all_to_all(_cut(x, size, split), axes, None, name, later)
    return Pending(started, (lambda y: _joined(y, size, join)) if join else None, x.requires_grad)


def _identity(x: Tensor) -> Pending:
    return Pending(_Done(activation(x)), None, False)


def _cut(x: Tensor, size: int, dim: int) -> Tensor:
    """[.., size * n, ..] -> [size * rows, ..]: the blocks of dim one after another along dim 0."""
    n = _block(x, dim, size)
    x = x.detach()
    dim = dim % x.dim()
    return x if dim == 0 else x.view(*x.shape[:dim], size, n, *x.shape[dim + 1 :]).movedim(dim, 0).flatten(0, 1)


def _joined(x: Tensor, size: int, dim: int) -> Tensor:
    """[size * rows, ..] -> [rows, .., size * n, ..]: the blocks of dim 0 side by side along dim."""
    return x.view(size, x.shape[0] // size, *x.shape[1:]).movedim(0, dim).flatten(dim, dim + 1)


def _block(x: Tensor, dim: int, size: int) -> int:
    n, rest = divmod(x.shape[dim], size)
    if rest:
        raise ValueError(f"dim {dim} of a tensor of shape {list(x.shape)} cannot be cut into {size} equal blocks")
    return n


def _like(result: Tensor, x: Tensor) -> Tensor:
    return result.requires_grad_() if x.requires_grad else result

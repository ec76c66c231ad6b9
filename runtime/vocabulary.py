"""Embedding and cross-entropy over classes that are split over ranks: the local pieces, between which ranks talk.

A rank holds a contiguous slice of n classes (rows of the table, or one dim of the logits), the coordinate-th of equal
slices of the classes padded so that they split; `classes` is their true number. Only tensors without the class dim
cross ranks. In emitted text:

    top = tape.run(highest, logits, ...)                  # P(max)
    top = all_reduce_max(top, "tp")
    sums = tape.run(class_sums, logits, top, labels, ...) # P
    sums = all_reduce(sums, "tp")
    loss = tape.run(cross_entropy_of_sums, sums, labels, ...)

`exponentials` and `picked` are the two halves of `class_sums`, each by itself. All is in float32 at least.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from moec.runtime.communicator import current


def embed_rows(tokens: Tensor, weight: Tensor, axes: str) -> Tensor:
    """tokens [...], weight [n, D], this rank's rows of the table -> [..., D], zero for other ranks' tokens.  P."""
    ranks = current()
    if ranks.size(axes) == 1:
        return F.embedding(tokens, weight)
    local, mine = _local(tokens, ranks.coordinate(axes) * weight.shape[0], weight.shape[0])
    return F.embedding(local, weight).masked_fill_(mine.logical_not().unsqueeze(-1), 0.0)


def highest(logits: Tensor, axes: str, classes: int, dim: int = -1) -> Tensor:
    """The largest of this rank's logits, over `dim`, which goes; -inf if it has only padding. No gradient.  P(max)."""
    logits = logits.detach()
    _, valid = _span(logits, axes, classes, dim)
    if valid == 0:
        return logits.select(dim, 0).to(_precise(logits), copy=True).fill_(-torch.inf)
    return logits.narrow(dim, 0, valid).amax(dim).to(_precise(logits))


def exponentials(logits: Tensor, top: Tensor, axes: str, classes: int, dim: int = -1) -> Tensor:
    """Sum of exp(logits - top) over this rank's classes.  P.

    `top` is the largest of all ranks; the sum over the ranks is the denominator of the softmax.
    """
    _, valid = _span(logits, axes, classes, dim)
    valid_logits = logits.narrow(dim, 0, valid).to(_precise(logits))
    return (valid_logits - top.unsqueeze(dim)).exp().sum(dim)


def picked(
    logits: Tensor, top: Tensor, labels: Tensor, axes: str, classes: int, ignore: int = -100, dim: int = -1
) -> Tensor:
    """logits - top of the label where it is a class of this rank, else 0, as for a label to ignore.  P."""
    start, valid = _span(logits, axes, classes, dim)
    local, mine = _local(labels, start, valid, ignore)
    found = logits.gather(dim, local.unsqueeze(dim)).squeeze(dim).to(_precise(logits))
    return torch.where(mine, found - top, 0.0)


def class_sums(
    logits: Tensor, top: Tensor, labels: Tensor, axes: str, classes: int, ignore: int = -100, dim: int = -1
) -> Tensor:
    """[2, ...]: `exponentials`, and `picked`.  P.

    Passes once over the logits backward, and keeps one tensor of their size for it.
    """
    start, valid = _span(logits, axes, classes, dim)
    local, mine = _local(labels, start, valid, ignore)
    return _ClassSums.apply(logits, top, local, mine, valid, dim % logits.dim())


def cross_entropy_of(
    total: Tensor, picked: Tensor, labels: Tensor, ignore: int = -100, reduction: str = "sum"
) -> Tensor:
    """Loss from the sums over the ranks of `exponentials` and `picked`; over the labels that are not to be ignored.

    reduction is "sum", "mean" or "none", of which each has the meaning that torch's cross_entropy gives it.
    """
    valid = labels != ignore
    losses = torch.where(valid, total.log() - picked, 0.0)
    match reduction:
        case "none":
            return losses
        case "sum":
            return losses.sum()
        case "mean":
            return losses.sum() / valid.sum()
    raise ValueError(f"reduction is {reduction}, and neither sum, mean nor none")


def cross_entropy_of_sums(sums: Tensor, labels: Tensor, ignore: int = -100, reduction: str = "sum") -> Tensor:
    """As `cross_entropy_of`, from the sum over the ranks of `class_sums`."""
    total, found = sums.unbind(0)
    return cross_entropy_of(total, found, labels, ignore, reduction)


class _Context(FunctionCtx):
    """What the forward leaves for the backward."""

    dim: int
    saved_tensors: tuple[Tensor, Tensor, Tensor]


class _ClassSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context, logits: Tensor, top: Tensor, local: Tensor, mine: Tensor, valid: int, dim: int
    ) -> Tensor:
        shifted = logits.to(_precise(logits)) - top.unsqueeze(dim)
        found = torch.where(mine, shifted.gather(dim, local.unsqueeze(dim)).squeeze(dim), 0.0)
        shifted.narrow(dim, valid, shifted.shape[dim] - valid).fill_(-torch.inf)
        powers = shifted.exp_()
        ctx.save_for_backward(powers, local, mine)
        ctx.dim = dim
        return torch.stack((powers.sum(dim), found))

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """exp(logits - top) times the first gradient, plus the second at the label; where the powers are."""
        powers, local, mine = ctx.saved_tensors
        of_total, of_found = gradient.unbind(0)
        at_label = torch.where(mine, of_found, 0.0).unsqueeze(ctx.dim)
        of_logits = powers.mul_(of_total.unsqueeze(ctx.dim)).scatter_add_(ctx.dim, local.unsqueeze(ctx.dim), at_label)
        return of_logits, None, None, None, None, None


def _span(logits: Tensor, axes: str, classes: int, dim: int) -> tuple[int, int]:
    """The first class of this rank, and how many it has that are no padding."""
    n = logits.shape[dim]
    start = current().coordinate(axes) * n
    return start, max(0, min(n, classes - start))


def _local(ids: Tensor, start: int, count: int, ignore: int | None = None) -> tuple[Tensor, Tensor]:
    """ids as places in a slice of `count` from `start`, 0 for those outside, and which are inside."""
    local = ids - start
    mine = (local >= 0) & (local < count)
    if ignore is not None:
        mine &= ids != ignore
    return local * mine, mine


def _precise(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)

"""Autograd functions around collectives; gradients of weights go straight into their buffers, never through autograd.

Legend: B sequences, T positions, E experts, R rows, V vocabulary.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.distributed import ProcessGroup

Group = ProcessGroup | None
"""None where a group has one rank."""

gather_flat = dist.all_gather_single if hasattr(dist, "all_gather_single") else dist.all_gather_into_tensor


class Linear(Function):
    """x Wᵀ; the input's gradient is summed over `group` meanwhile the weight's is added to its buffer."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, group: Group) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.group = group
        return F.linear(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, None, None]:
        x, weight = ctx.saved_tensors
        gx = g @ weight
        work = dist.all_reduce(gx, group=ctx.group, async_op=True) if ctx.group else None
        weight.grad.addmm_(g.flatten(0, 1).T, x.flatten(0, 1))
        if work:
            work.wait()
        return gx, None, None


class GroupedLinear(Function):
    """One matrix per expert: rows [E, R, K], weight [E, N, K] -> [E, R, N]."""

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return torch.bmm(rows, weight.transpose(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, None]:
        rows, weight = ctx.saved_tensors
        weight.grad.baddbmm_(g.transpose(1, 2), rows)
        return torch.bmm(g, weight), None


class SumForward(Function):
    """A sum over ranks of which each continues with the whole; in place."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, group: Group) -> Tensor:
        dist.all_reduce(x, group=group)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, None]:
        return g, None


class SumBackward(Function):
    """Two tensors that each rank uses in its own way: their gradients are summed in one message."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, y: Tensor, group: Group) -> tuple[Tensor, Tensor]:
        ctx.group = group
        return x.view_as(x), y.view_as(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gx: Tensor, gy: Tensor) -> tuple[Tensor, Tensor, None]:
        packed = torch.cat((gx.flatten(), gy.flatten()))
        dist.all_reduce(packed, group=ctx.group)
        gx, gy = (part.view(g.shape) for part, g in zip(packed.split((gx.numel(), gy.numel())), (gx, gy), strict=True))
        return gx, gy, None


class AllToAll(Function):
    """Equal parts of the first dim change places."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return exchange(x, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, None]:
        return exchange(g, ctx.group), None


def exchange(x: Tensor, group: Group) -> Tensor:
    arrived = torch.empty_like(x, memory_format=torch.contiguous_format)
    dist.all_to_all_single(arrived, x.contiguous(), group=group)
    return arrived


class Embedding(Function):
    """Rows of a table of which this rank holds those from `first` on; zero for the others."""

    @staticmethod
    def forward(ctx: FunctionCtx, table: Tensor, tokens: Tensor, first: int) -> Tensor:
        local = tokens - first
        away = (local < 0) | (local >= len(table))
        local = local.masked_fill_(away, 0)
        ctx.save_for_backward(table, local, away)
        return table[local].masked_fill_(away.unsqueeze(-1), 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[None, None, None]:
        table, local, away = ctx.saved_tensors
        table.grad.index_add_(0, local.flatten(), g.masked_fill(away.unsqueeze(-1), 0.0).flatten(0, 1))
        return None, None, None


class CrossEntropy(Function):
    """Sum over positions, of logits [R, V/tp]; one all_gather of maximum, sum and the label's logit."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, labels: Tensor, first: int, group: ProcessGroup) -> Tensor:
        local = labels - first
        away = (local < 0) | (local >= logits.shape[1])
        local = local.masked_fill_(away, 0).unsqueeze(-1)
        top = logits.amax(-1)
        power = (logits - top.unsqueeze(-1)).exp_()
        label = logits.gather(-1, local).squeeze(-1).masked_fill_(away, 0.0)
        mine = torch.stack((top, power.sum(-1), label))
        every = mine.new_empty(group.size() * 3, len(labels))
        gather_flat(every, mine, group=group)
        tops, sums, labels = every.view(-1, 3, len(labels)).unbind(1)
        highest = tops.amax(0)
        total = (sums * (tops - highest).exp_()).sum(0)
        power.mul_(((top - highest).exp_() / total).unsqueeze(-1))
        ctx.save_for_backward(power, local, away)
        return (total.log() + highest - labels.sum(0)).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor, None, None, None]:
        power, local, away = ctx.saved_tensors
        power.scatter_add_(-1, local, (away.to(power.dtype) - 1.0).unsqueeze(-1))
        return power.mul_(g), None, None, None

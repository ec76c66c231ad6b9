"""Matrix products with a weight, whose gradient is added straight into the weight's own and never made by itself.

Each is the plain torch function in value and in gradients. Where a weight is none of the rank's own (it was gathered,
cast or sliced before), or keeps its gradient in another precision, autograd does what it always does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import Parameter


class _Context(FunctionCtx):
    """What the forward leaves for the backward."""

    saved_tensors: tuple[Tensor, Tensor]
    needs_input_grad: tuple[bool, ...]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear: x [..., K], weight [N, K], bias [N] -> [..., N]."""
    if x.dim() < 2 or not _adds(x, weight):
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


def batched_linear(rows: Tensor, weight: Tensor) -> Tensor:
    """One matrix for each of E runs of rows: rows [E, R, K], weight [E, N, K] -> [E, R, N]."""
    if not _adds(rows, weight):
        return torch.bmm(rows, weight.transpose(1, 2))
    return _BatchedLinear.apply(rows, weight)


def _adds(x: Tensor, weight: Tensor) -> bool:
    """Has the weight a gradient to which one of its own precision can be added?"""
    if type(weight) is not Parameter or not weight.requires_grad or weight.grad is None:
        return False
    return x.dtype is weight.dtype is weight.grad.dtype


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, g: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, _, of_bias = ctx.needs_input_grad
        flat = g.flatten(0, -2)
        assert weight.grad is not None
        weight.grad.addmm_(flat.t(), x.flatten(0, -2))
        return g.matmul(weight) if of_x else None, None, flat.sum(0) if of_bias else None


class _BatchedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return torch.bmm(rows, weight.transpose(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, g: Tensor) -> tuple[Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        assert weight.grad is not None
        weight.grad.baddbmm_(g.transpose(1, 2), rows)
        return torch.bmm(g, weight) if ctx.needs_input_grad[0] else None, None

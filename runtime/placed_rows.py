"""Rows that are put into places and fetched from them, with a backward that makes no tensor more than it must.

Legend: N rows, K choices of each, R places, H hidden. Place R stands for nowhere.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


class _Context(FunctionCtx):
    """What the forward leaves for the backward."""

    saved_tensors: tuple[Tensor, ...]


def put_rows(x: Tensor, slot: Tensor, places: int) -> Tensor:
    """x [N, H], slot [N, K] -> [R, H]: each row in all of its places, no two of which are the same; else zero."""
    return _Put.apply(x, slot, places)


def fetch_rows(table: Tensor, weight: Tensor, slot: Tensor) -> Tensor:
    """table [R, H], weight and slot [N, K] -> [N, H]: the weighted sum of each row's places, in the order of K.

    The weight of place R must be zero.
    """
    return _Fetch.apply(table, weight, slot)


class _Put(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, slot: Tensor, places: int) -> Tensor:
        ctx.save_for_backward(slot)
        table = x.new_zeros(places + 1, x.shape[1])
        for choice in slot.unbind(1):
            table.index_add_(0, choice, x)
        return table[:-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slot,) = ctx.saved_tensors
        kept = slot < len(gradient)
        near = _inside(slot, len(gradient))
        terms = [gradient.index_select(0, near[:, k]).mul_(kept[:, k, None]) for k in range(slot.shape[1])]
        total, *others = terms
        for term in others:
            total += term
        return total, None, None


class _Fetch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, table: Tensor, weight: Tensor, slot: Tensor) -> Tensor:
        ctx.save_for_backward(table, weight, slot)
        near, factor = _inside(slot, len(table)), weight.to(table.dtype)
        terms = [table.index_select(0, near[:, k]).mul_(factor[:, k, None]) for k in range(slot.shape[1])]
        total, *others = terms
        for term in others:
            total += term
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        table, weight, slot = ctx.saved_tensors
        near, factor = _inside(slot, len(table)), weight.to(table.dtype)
        of_table = table.new_zeros(len(table) + 1, table.shape[1])
        of_weight = torch.empty_like(weight)
        for k in range(slot.shape[1]):
            of_table.index_add_(0, slot[:, k], gradient * factor[:, k, None])
            of_weight[:, k] = (gradient * table.index_select(0, near[:, k])).sum(1)
        return of_table[:-1], of_weight, None


def _inside(slot: Tensor, places: int) -> Tensor:
    """Nowhere becomes the last place, which there may not be."""
    return slot.clamp(max=places - 1)

"""What is one kernel where a rank runs, and several operators without memory: attention, and RMSNorm on a GPU."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.overrides import TorchFunctionMode

from moec.compiler.cost.kernels import Kernel, Kind
from moec.compiler.cost.recorder import Recorder, bytes_of, listed


class Fusing(TorchFunctionMode):
    """Attention and, on a GPU, RMSNorm as the one kernel each is there; without memory torch takes them apart."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        options = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            query, key, value = args[:3]
            causal = bool(options.get("is_causal", args[5] if len(args) > 5 else False))
            return _Fused.apply(query, key, value, causal, self._recorder)
        if func is F.rms_norm and self._recorder.gpu:
            weight = args[2] if len(args) > 2 else options.get("weight")
            return _Norm.apply(*args[:1], weight, self._recorder)
        return func(*args, **options)


class _Context(FunctionCtx):
    """What the forward leaves for the backward."""

    saved_tensors: tuple[Tensor, ...]
    causal: bool
    recorder: Recorder


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, query: Tensor, key: Tensor, value: Tensor, causal: bool, recorder: Recorder) -> Tensor:
        out = _laid_out_by_position(query, value.shape[-1])
        rows = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, rows)
        ctx.causal, ctx.recorder = causal, recorder
        flops = _attention_flops(query, key, value, causal)
        done = _fused(recorder, "attention", "attention", flops, (query, key, value), (out, rows))
        recorder.add(replace(done, sizes=_heads(query, key, causal)))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, rows = ctx.saved_tensors
        found = tuple(torch.empty_like(x) for x in (query, key, value))
        recorder = ctx.recorder
        flops = 2.5 * _attention_flops(query, key, value, ctx.causal)  # five products, where forward has two
        reads = (query, key, value, out, rows, gradient)
        done = _fused(recorder, "attention", "attention_backward", flops, reads, found)
        recorder.add(replace(done, sizes=_heads(query, key, ctx.causal)))
        return *found, None, None


def _laid_out_by_position(query: Tensor, size: int) -> Tensor:
    """Fused attention writes [B, H, T, D] as it lies in [B, T, H, D], which whoever joins the heads need not copy."""
    *batch, heads, positions, _ = query.shape
    return query.new_empty(*batch, positions, heads, size).transpose(-3, -2)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, weight: Tensor, recorder: Recorder) -> Tensor:
        out, scale = torch.empty_like(x), x.new_empty(x.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(x, weight, scale)
        ctx.recorder = recorder
        recorder.add(_fused(recorder, "rms_norm", "memory", 0.0, (x, weight), (out, scale)))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        found = torch.empty_like(x), torch.empty_like(weight)
        ctx.recorder.add(_fused(ctx.recorder, "rms_norm", "memory", 0.0, (gradient, x, weight, scale), found))
        return *found, None


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> float:
    """Two products; under a causal mask half of each is not computed."""
    whole = 2.0 * prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    return whole / 2 if causal else whole


def _heads(query: Tensor, key: Tensor, causal: bool) -> tuple[int, int, int, int]:
    """As `Kernel.sizes`."""
    keys = key.shape[-2] // 2 if causal else key.shape[-2]
    return prod(query.shape[:-2]), query.shape[-2], max(1, keys), query.shape[-1]


def _fused(
    recorder: Recorder, name: str, kind: Kind, flops: float, reads: Sequence[Tensor], writes: Sequence[Tensor]
) -> Kernel:
    moved = sum(bytes_of(x) for x in (*reads, *writes))
    ends = listed(recorder, reads), listed(recorder, writes)
    return Kernel(name, kind, flops, moved, (1, 1, 1, 1), recorder.region, *ends)

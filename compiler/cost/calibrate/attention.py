"""Causal attention to be timed, forward and backward."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from moec.compiler.cost.calibrate.order import Device, Precision
from moec.compiler.cost.calibrate.products import DTYPES, Work
from moec.compiler.cost.kernels import Kernel

_SHAPES: dict[Device, tuple[tuple[int, int, int, int], ...]] = {
    "cpu": ((4, 4, 64, 16), (8, 2, 64, 64), (2, 4, 256, 32), (1, 4, 512, 64), (2, 4, 256, 64)),
    "cuda": ((4, 16, 2048, 128), (1, 32, 4096, 128), (8, 16, 1024, 64), (1, 16, 8192, 128)),
}
"""Samples, heads, positions, size of a head."""


def attention(device: Device, precision: Precision, every: int) -> Iterator[Work]:
    """Half of each product lies behind the mask; forward has two products, and backward five."""
    for shape in _SHAPES[device][::every]:
        q, k, v, gradient = (torch.randn(shape, dtype=DTYPES[precision], device=device) for _ in range(4))
        flops, moved = 2.0 * q.numel() * shape[2], q.nbytes
        sizes = shape[0] * shape[1], shape[2], shape[2] // 2, shape[3]
        yield (Kernel("attention", "attention", flops, 4 * moved, sizes),), partial(_attend, q, k, v)
        leaves = [x.requires_grad_() for x in (q, k, v)]
        backward = partial(torch.autograd.grad, _attend(q, k, v), leaves, gradient, retain_graph=True)
        yield (Kernel("attention", "attention_backward", 2.5 * flops, 8 * moved, sizes),), backward


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)

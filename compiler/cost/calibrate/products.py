"""Matrix products to be timed: those of a linear layer forward and backward, and of experts, a matrix for each."""

from collections.abc import Iterator
from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F

from moec.compiler.cost.calibrate.clock import Call
from moec.compiler.cost.calibrate.order import Device, Precision
from moec.compiler.cost.kernels import Kernel, Kind

Work: TypeAlias = tuple[tuple[Kernel, ...], Call]
"""Kernels, and what runs them."""

DTYPES: dict[Precision, torch.dtype] = {"half": torch.bfloat16, "single": torch.float32, "double": torch.float64}

_LINEAR: dict[Device, tuple[tuple[int, int, int], ...]] = {
    "cpu": (
        (512, 512, 512),
        (256, 256, 256),
        (128, 128, 128),
        (64, 64, 64),
        (16, 64, 64),
        (32, 32, 32),
        (1024, 64, 64),
        (16, 16, 16),
        (1024, 64, 256),
        (1024, 256, 64),
        (128, 8, 64),
        (64, 256, 16),
        (8, 256, 256),
        (512, 512, 16),
        (32, 1024, 256),
        (2, 256, 256),
    ),
    "cuda": (
        (8192, 8192, 8192),
        (4096, 4096, 4096),
        (2048, 2048, 2048),
        (1024, 1024, 1024),
        (512, 512, 512),
        (256, 256, 256),
        (16384, 2048, 2048),
        (4096, 1024, 4096),
        (16384, 512, 2048),
        (4096, 64, 2048),
        (256, 4096, 4096),
        (64, 4096, 4096),
        (16, 4096, 4096),
        (1024, 14336, 4096),
    ),
}
"""Rows of the activations, and columns of the output and of the input."""

_GROUPED: dict[Device, tuple[tuple[int, int, int, int], ...]] = {
    "cpu": (
        (4, 64, 128, 64),
        (4, 8, 128, 64),
        (16, 4, 64, 64),
        (8, 16, 64, 64),
        (8, 128, 128, 128),
        (64, 8, 32, 32),
        (16, 64, 16, 64),
        (64, 1, 64, 64),
        (128, 64, 64, 16),
        (4, 2, 256, 256),
    ),
    "cuda": (
        (8, 2048, 4096, 2048),
        (64, 128, 1024, 2048),
        (8, 512, 4096, 2048),
        (16, 64, 4096, 2048),
        (64, 16, 1024, 2048),
        (128, 64, 1024, 1024),
        (16, 8, 4096, 2048),
        (64, 512, 512, 1024),
    ),
}
"""Experts, and the rows of each; columns of the output and of the input."""

_MOST_FLOPS = {"cpu": {"half": 2**23}, "cuda": {"double": 2**37}}
"""Of one product, in a precision that many devices have no arithmetic for: they take a second for it."""


def linears(device: Device, precision: Precision, every: int) -> Iterator[Work]:
    """F.linear, and the gradients of its input and of its weight."""
    most = _MOST_FLOPS[device].get(precision, float("inf"))
    options = {"dtype": DTYPES[precision], "device": device}
    for m, n, k in _LINEAR[device][::every]:
        if 2 * m * n * k > most:
            continue
        x, w, dy = torch.randn(m, k, **options), torch.randn(n, k, **options), torch.randn(m, n, **options)
        yield _product("product", 1, m, n, k, x.element_size()), partial(F.linear, x, w)
        yield _product("product", 1, m, k, n, x.element_size()), partial(torch.mm, dy, w)
        yield _product("product", 1, n, k, m, x.element_size()), partial(torch.mm, dy.t(), x)


def grouped(device: Device, precision: Precision, every: int) -> Iterator[Work]:
    """The same of many small matrices, as `runtime/grouped.py` does it."""
    options = {"dtype": DTYPES[precision], "device": device}
    for e, m, n, k in _GROUPED[device][::every]:
        x, w, dy = torch.randn(e, m, k, **options), torch.randn(e, n, k, **options), torch.randn(e, m, n, **options)
        yield _product("grouped", e, m, n, k, x.element_size()), partial(torch.bmm, x, w.transpose(1, 2))
        yield _product("grouped", e, m, k, n, x.element_size()), partial(torch.bmm, dy, w)
        yield _product("grouped", e, n, k, m, x.element_size()), partial(torch.bmm, dy.transpose(1, 2), x)


def _product(kind: Kind, count: int, rows: int, columns: int, depth: int, width: int) -> tuple[Kernel, ...]:
    moved = count * (rows * columns + columns * depth + rows * depth) * width
    return (Kernel(kind, kind, 2.0 * count * rows * columns * depth, moved, (count, rows, columns, depth)),)

"""Rotary positions, as both rivals compute them."""

import torch
from torch import Tensor

from rivals.workload import Sizes


def rotary_tables(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """cos and sin [T, head_dim]."""
    frequency = sizes.rope_base ** (-torch.arange(0, sizes.head_dim, 2).float() / sizes.head_dim)
    angle = torch.arange(sizes.seq).float()[:, None] * frequency
    angle = torch.cat((angle, angle), -1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat((-high, low), -1) * sin

"""Routed feed-forwards at the corners: every token to the same experts, as many experts as choices, an expert a rank.

Legend: B samples, R rows, W width.
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moec.runtime.routing import capacity_of, collect, dispatch, grouped_linear, route


class Routed(nn.Module):
    """Layers whose router is frozen at zero, so that all tokens choose the first `top_k` experts."""

    def __init__(
        self, width: int, inner: int, layers: int, rows: int, experts: int, top_k: int, slack: int, group: str
    ):
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, inner, rows, experts, top_k, slack, group) for _ in range(layers))
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy(self.head(x.mean(1)), label)


class Layer(nn.Module):
    """`slack` is of an expert's rows over the mean, in quarters; 0 drops nothing."""

    def __init__(self, width: int, inner: int, rows: int, experts: int, top_k: int, slack: int, group: str):
        super().__init__()
        self.count, self.top_k, self.group = experts, top_k, group
        tokens = rows if group == "per_sequence" else 12 * rows
        self.capacity = capacity_of(tokens, top_k, experts, Fraction(slack, 4)) if slack else None
        self.router = nn.Linear(width, experts, bias=False).requires_grad_(False)
        nn.init.zeros_(self.router.weight)
        self.up = nn.Parameter(torch.randn(experts, inner, width) * 0.3)
        self.down = nn.Parameter(torch.randn(experts, width, inner) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.router(x)
        prob, expert, place = route(logits, self.top_k, self.capacity, self.group, True)
        rows = dispatch(x, expert, place, self.count, self.capacity, self.group)
        rows = grouped_linear(F.gelu(grouped_linear(rows, self.up)), self.down)
        return x + collect(rows, prob, expert, place, self.group)

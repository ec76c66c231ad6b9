"""A routed feed-forward with boolean masks and a loop over experts, as unlike the compiled one as it can be.

Legend: B sequences, T positions, K choices of a token, E experts, D hidden, C capacity.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import torch
from torch import Tensor, nn

PER_SEQUENCE, PER_MICROBATCH = "per_sequence", "per_microbatch"


@dataclass(frozen=True, slots=True)
class Routing:
    """What a sparse layer decided for one micro-batch: which experts, best first, and whether each took the token."""

    expert: Tensor  # int64 [B, T, K]
    kept: Tensor  # bool [B, T, K]


@dataclass(frozen=True, slots=True)
class ExpertSizes:
    count: int
    ffn: int
    top_k: int = 1
    capacity: Fraction | None = None
    """Rows that an expert takes, over the mean; None takes all."""
    min_capacity: int = 0
    group: str = PER_SEQUENCE
    """The tokens among which the capacity is shared out."""
    gated: bool = False
    softmax_first: bool = True

    def rows(self, tokens: int) -> int:
        """Most rows that an expert takes of a group of so many positions, exactly."""
        if self.capacity is None:
            return tokens
        return max(self.min_capacity, ceil(Fraction(self.top_k * tokens, self.count) * self.capacity))


class Experts(nn.Module):
    def __init__(self, hidden: int, sizes: ExpertSizes):
        super().__init__()
        self.sizes = sizes
        self.router = nn.Linear(hidden, sizes.count, bias=False)
        self.up = nn.Parameter(torch.empty(sizes.count, sizes.ffn, hidden))
        self.gate = nn.Parameter(torch.empty(sizes.count, sizes.ffn, hidden)) if sizes.gated else None
        self.down = nn.Parameter(torch.empty(sizes.count, hidden, sizes.ffn))

    def forward(self, x: Tensor) -> tuple[Tensor, Routing]:
        """[B, T, D] -> [B, T, D]: the sum over the experts that took a token, weighted; zero if none did."""
        wide = torch.promote_types(x.dtype, torch.float32)
        scores = x.to(wide) @ self.router.weight.to(wide).T
        prob, expert = choose(scores, self.sizes.top_k, self.sizes.softmax_first)
        kept = keep(expert, self.sizes)
        y = torch.zeros_like(x)
        for e in range(self.sizes.count):
            mine = (expert == e) & kept
            took = mine.any(-1)
            weight = (prob * mine).sum(-1)[took].to(x.dtype)
            y = y.index_put((took,), weight[:, None] * self._expert(e, x[took]), accumulate=True)
        return y, Routing(expert, kept)

    def _expert(self, e: int, rows: Tensor) -> Tensor:
        inner = rows @ self.up[e].T
        if self.gate is None:
            return nn.functional.gelu(inner) @ self.down[e].T
        return (nn.functional.silu(rows @ self.gate[e].T) * inner) @ self.down[e].T


def choose(scores: Tensor, top_k: int, softmax_first: bool) -> tuple[Tensor, Tensor]:
    """Best experts of every token, the lower one on a tie: scores [B, T, E] -> prob, expert [B, T, K]."""
    if softmax_first:
        scores = scores.softmax(-1)
    left, chosen = scores.detach().clone(), []
    for _ in range(top_k):
        best = (left == left.amax(-1, keepdim=True)).to(torch.uint8).argmax(-1, keepdim=True)  # the first of the best
        left = left.scatter(-1, best, -torch.inf)
        chosen.append(best)
    expert = torch.cat(chosen, -1)
    prob = scores.gather(-1, expert)
    return prob if softmax_first else prob.softmax(-1), expert


def keep(expert: Tensor, sizes: ExpertSizes) -> Tensor:
    """Whether a choice is among the first C of its expert, in the order of the group's tokens: bool [B, T, K]."""
    groups = expert if sizes.group == PER_SEQUENCE else expert.flatten(0, 1).unsqueeze(0)
    room = sizes.rows(groups.shape[1])
    kept = torch.zeros_like(groups, dtype=torch.bool)
    for e in range(sizes.count):
        mine = groups == e
        earlier = mine.any(-1).long().cumsum(1) - 1  # a token chooses an expert at most once
        kept |= mine & (earlier < room)[..., None]
    return kept.view(expert.shape)

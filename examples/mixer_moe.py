"""A mixer with experts for mixer_moe.plan: no attention, and positions mixed by a matrix.

It calls moec's routing, so its experts shard; run as it is, it is plain torch.
Legend: B sequences, S positions, W width.
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moec.runtime.routing import capacity_of, collect, dispatch, grouped_linear, route

SLACK = Fraction(5, 4)
"""Rows that an expert takes of a sequence, over the mean."""


class Mixer(nn.Module):
    """Text and what to say at each position, -100 for nothing, [B, S] -> (sum of cross-entropies, their count)."""

    def __init__(self, vocab: int, seq: int, width: int, mixed: int, blocks: int, experts: int, ffn: int):
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Block(seq, width, mixed, experts, ffn) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab)

    def forward(self, text: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(text)
        for block in self.blocks:
            x = block(x)
        scores = self.head(self.norm(x))
        loss = F.cross_entropy(scores.transpose(1, 2), answer, reduction="sum")
        return loss, (answer != -100).sum()


class Block(nn.Module):
    def __init__(self, seq: int, width: int, mixed: int, experts: int, ffn: int):
        super().__init__()
        self.mix_norm = nn.LayerNorm(width)
        self.mix_up = nn.Linear(seq, mixed)
        self.mix_down = nn.Linear(mixed, seq)
        self.norm = nn.LayerNorm(width)
        self.experts = Experts(seq, width, experts, ffn)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.mix_norm(x).transpose(1, 2)  # [B, W, S]
        x = x + self.mix_down(F.gelu(self.mix_up(columns))).transpose(1, 2)
        return x + self.experts(self.norm(x))


class Experts(nn.Module):
    """The two best of several feed-forwards for every position."""

    def __init__(self, seq: int, width: int, experts: int, ffn: int):
        super().__init__()
        self.count, self.capacity = experts, capacity_of(seq, 2, experts, SLACK)
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.empty(experts, ffn, width))
        self.down = nn.Parameter(torch.empty(experts, width, ffn))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.up, std=self.up.shape[2] ** -0.5)
        nn.init.normal_(self.down, std=self.down.shape[2] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        prob, expert, place = route(self.router(x).float(), 2, self.capacity, softmax_first=False)
        rows = dispatch(x, expert, place, self.count, self.capacity)
        rows = grouped_linear(F.gelu(grouped_linear(rows, self.up)), self.down)
        return collect(rows, prob, expert, place)


class Backwards:
    """Random letters, of which the answer is to say them from the last to the first; some places are not asked."""

    def __init__(self, vocab: int = 32, seq: int = 16):
        self.vocab, self.seq = vocab, seq

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(index)
        text = torch.randint(self.vocab, (self.seq,), generator=generator)
        asked = torch.rand(self.seq, generator=generator) < 0.75
        return {"text": text, "answer": torch.where(asked, text.flip(0), -100)}


backwards = Backwards()

"""GPT as Megatron-LM trained it: learned positions, layer norms, gelu, a head tied to the embedding.

Attention is written out, as it ran before there was fused attention (Narayanan et al., 2021), or is one operator.
Legend: B sequences, S positions, D hidden, H heads, G groups of heads that share a key and a value.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GPT(nn.Module):
    """Tokens and next tokens [B, S] -> (sum of cross-entropies, number of valid positions)."""

    def __init__(
        self,
        layers: int,
        hidden: int,
        heads: int,
        head_dim: int,
        ffn: int,
        vocab: int,
        seq: int,
        groups: int = 0,
        tied: bool = True,
        bias: bool = True,
        dropout: bool = True,
        fused_attention: bool = False,
    ):
        super().__init__()
        self.dropout = dropout
        self.embed = nn.Embedding(vocab, hidden)
        self.positions = nn.Parameter(torch.empty(seq, hidden))
        self.layers = nn.ModuleList(
            Layer(
                Attention(hidden, heads, groups or heads, head_dim, bias, dropout, fused_attention),
                FeedForward(hidden, ffn, bias),
                hidden,
                bias,
                dropout,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden, bias=bias)
        self.head = nn.Linear(hidden, vocab, bias=False)
        if tied:
            self.head.weight = self.embed.weight
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = dropped(self.embed(tokens) + self.positions, self.dropout)
        for layer in self.layers:
            x = layer(x)
        logits = self.head(self.norm(x)).float()
        loss = F.cross_entropy(logits.transpose(1, 2), labels, reduction="sum")
        return loss, (labels != -100).sum()


class Layer(nn.Module):
    def __init__(self, attention: "Attention", ffn: "FeedForward", hidden: int, bias: bool, dropout: bool):
        super().__init__()
        self.dropout = dropout
        self.attn_norm = nn.LayerNorm(hidden, bias=bias)
        self.attn = attention
        self.ffn_norm = nn.LayerNorm(hidden, bias=bias)
        self.ffn = ffn

    def forward(self, x: Tensor) -> Tensor:
        x = x + dropped(self.attn(self.attn_norm(x)), self.dropout)
        return x + dropped(self.ffn(self.ffn_norm(x)), self.dropout)


class Attention(nn.Module):
    """Causal; queries, keys and values come from one matrix, a group of heads after the other."""

    def __init__(self, hidden: int, heads: int, groups: int, head_dim: int, bias: bool, dropout: bool, fused: bool):
        super().__init__()
        self.heads, self.groups, self.head_dim = heads, groups, head_dim
        self.dropout, self.fused = dropout, fused
        self.qkv = nn.Linear(hidden, (heads + 2 * groups) * head_dim, bias=bias)
        self.out = nn.Linear(heads * head_dim, hidden, bias=bias)

    def forward(self, h: Tensor) -> Tensor:
        batch, seq, _ = h.shape
        shared = self.heads // self.groups
        qkv = self.qkv(h).view(batch, seq, self.groups, shared + 2, self.head_dim)
        q, k, v = qkv.split((shared, 1, 1), dim=3)
        q, k, v = (each.reshape(batch, seq, -1, self.head_dim).transpose(1, 2) for each in (q, k, v))
        if self.fused:
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared > 1)
        else:
            a = attention(q, k, v, self.dropout)
        return self.out(a.transpose(1, 2).reshape(batch, seq, self.heads * self.head_dim))


def attention(q: Tensor, k: Tensor, v: Tensor, dropout: bool) -> Tensor:
    """[B, H, S, head_dim] each, with the whole matrix of scores in memory."""
    seq = q.shape[2]
    future = torch.ones(seq, seq, dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ k.transpose(2, 3)) * q.shape[3] ** -0.5
    return dropped(scores.masked_fill(future, -10_000.0).softmax(-1), dropout) @ v


def dropped(x: Tensor, dropout: bool) -> Tensor:
    """What dropout costs without its dice: a mask is made, applied and kept, a byte an element."""
    return x.masked_fill(x.detach() < -1.0, 0.0) if dropout else x


class FeedForward(nn.Module):
    def __init__(self, hidden: int, ffn: int, bias: bool):
        super().__init__()
        self.up = nn.Linear(hidden, ffn, bias=bias)
        self.down = nn.Linear(ffn, hidden, bias=bias)

    def forward(self, h: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(h)))

"""The described model once more: a decoder-only transformer in plain torch, its weights named as in the plan's model.

Legend: B sequences, T positions, D hidden, H heads, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moec.compiler.reference.experts import Experts, ExpertSizes, Routing

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Sizes:
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int | None
    """None where every layer has experts."""
    vocab: int
    gated: bool
    tied: bool
    norm_eps: float
    rope_base: float
    experts: ExpertSizes | None


class Decoder(nn.Module):
    """Tokens and next tokens [B, T] -> (sum of the cross-entropies, number of labels that are not -100).

    `layers` names each layer, as in "layers.4", and says whether it has experts; the names need not be consecutive.
    Every call appends to `routing` what its sparse layers decided, by the layer's name.
    """

    def __init__(self, layers: Sequence[tuple[str, bool]], sizes: Sizes):
        super().__init__()
        self.routing: list[dict[str, Routing]] = []
        self.embed = nn.Embedding(sizes.vocab, sizes.hidden)
        self.layers = nn.ModuleDict({_key(name): Layer(sizes, sparse) for name, sparse in layers})
        self.norm = Norm(sizes.hidden, sizes.norm_eps)
        self.head = None if sizes.tied else nn.Linear(sizes.hidden, sizes.vocab, bias=False)

    def forward(self, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x, decided = self.embed.weight[tokens], {}
        for key, layer in self.layers.items():
            x, routing = layer(x)
            if routing is not None:
                decided[f"layers.{key}"] = routing
        self.routing.append(decided)
        output = self.embed.weight if self.head is None else self.head.weight
        return cross_entropy(self.norm(x) @ output.T, labels)


class Layer(nn.Module):
    def __init__(self, sizes: Sizes, sparse: bool):
        super().__init__()
        self.attn_norm = Norm(sizes.hidden, sizes.norm_eps)
        self.attn = Attention(sizes)
        self.ffn_norm = Norm(sizes.hidden, sizes.norm_eps)
        self.ffn = _feed_forward(sizes, sparse)

    def forward(self, x: Tensor) -> tuple[Tensor, Routing | None]:
        x = x + self.attn(self.attn_norm(x))
        h = self.ffn_norm(x)
        if isinstance(self.ffn, Experts):
            y, routing = self.ffn(h)
            return x + y, routing
        return x + self.ffn(h), None


class Norm(nn.Module):
    """Divide by the root of the mean square."""

    def __init__(self, hidden: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(hidden))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(_wide(x))
        scale = (wide.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return (wide * scale * self.weight.to(wide.dtype)).to(x.dtype)


class Attention(nn.Module):
    """Each position sees itself and those before; several query heads may share a key and a value."""

    def __init__(self, sizes: Sizes):
        super().__init__()
        self.sizes = sizes
        self.wq = nn.Linear(sizes.hidden, sizes.heads * sizes.head_dim, bias=False)
        self.wk = nn.Linear(sizes.hidden, sizes.kv_heads * sizes.head_dim, bias=False)
        self.wv = nn.Linear(sizes.hidden, sizes.kv_heads * sizes.head_dim, bias=False)
        self.wo = nn.Linear(sizes.heads * sizes.head_dim, sizes.hidden, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        shared = self.sizes.heads // self.sizes.kv_heads
        q, k, v = (w(h).unflatten(-1, (-1, self.sizes.head_dim)) for w in (self.wq, self.wk, self.wv))  # [B, T, H, d]
        q, k = rotate(q, self.sizes.rope_base), rotate(k, self.sizes.rope_base)
        k, v = k.repeat_interleave(shared, 2), v.repeat_interleave(shared, 2)
        scores = torch.einsum("bthd,bshd->bhts", q, k) / self.sizes.head_dim**0.5
        future = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool, device=h.device).triu(1)
        seen = scores.masked_fill(future, -torch.inf).softmax(-1)
        return self.wo(torch.einsum("bhts,bshd->bthd", seen, v).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, hidden: int, ffn: int, gated: bool):
        super().__init__()
        self.up = nn.Linear(hidden, ffn, bias=False)
        self.gate = nn.Linear(hidden, ffn, bias=False) if gated else None
        self.down = nn.Linear(ffn, hidden, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        inner = F.gelu(self.up(h)) if self.gate is None else F.silu(self.gate(h)) * self.up(h)
        return self.down(inner)


def rotate(x: Tensor, base: float) -> Tensor:
    """Turn each pair (i, i + d/2) of a head by the position times base^(-2i/d): [B, T, H, d]."""
    wide, half = _wide(x), x.shape[-1] // 2
    speed = base ** (-torch.arange(half, dtype=wide, device=x.device) / half)
    angle = torch.arange(x.shape[1], dtype=wide, device=x.device)[:, None, None] * speed
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    low, high = x[..., :half], x[..., half:]
    return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [B, T, V], labels [B, T] -> sum over the labels that count, and how many they are."""
    valid = labels != IGNORED
    logits, labels = logits[valid].to(_wide(logits)), labels[valid]
    right = logits.gather(-1, labels[:, None]).squeeze(-1)
    return (logits.logsumexp(-1) - right).sum(), valid.sum()


def _feed_forward(sizes: Sizes, sparse: bool) -> FeedForward | Experts:
    if sparse:
        assert sizes.experts is not None, "a sparse layer, but the model has no experts"
        return Experts(sizes.hidden, sizes.experts)
    assert sizes.ffn is not None, "a dense layer, but the model has no ffn"
    return FeedForward(sizes.hidden, sizes.ffn, sizes.gated)


def _key(name: str) -> str:
    parent, _, key = name.partition(".")
    assert parent == "layers" and key.isdigit(), f"a layer named {name}"
    return key


def _wide(x: Tensor) -> torch.dtype:
    """float64 stays; anything narrower is computed in float32."""
    return torch.promote_types(x.dtype, torch.float32)

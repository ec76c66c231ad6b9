"""The described model: a decoder-only transformer with dense or mixture-of-experts feed-forward, in plain torch.

It enters the compiler by the same door as an imported module. Legend: B sequences, T positions, D hidden.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moec.runtime.routing import collect, dispatch, grouped_linear, route

DIMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("embed.weight", ("vocab", "hidden")),
    ("*norm.weight", ("hidden",)),
    ("*.wq.weight", ("heads", "hidden")),
    ("*.wk.weight", ("kv_heads", "hidden")),
    ("*.wv.weight", ("kv_heads", "hidden")),
    ("*.wo.weight", ("hidden", "heads")),
    ("*.router.weight", ("choices", "hidden")),
    ("*.gate.weight", ("ffn", "hidden")),
    ("*.up.weight", ("ffn", "hidden")),
    ("*.down.weight", ("hidden", "ffn")),
    ("*.ffn.gate", ("experts", "expert_ffn", "hidden")),
    ("*.ffn.up", ("experts", "expert_ffn", "hidden")),
    ("*.ffn.down", ("experts", "hidden", "expert_ffn")),
    ("head.weight", ("vocab", "hidden")),
)
"""The logical dims of every weight, by pattern of its name, first match."""

INITIAL = (("*norm.weight", "ones"), ("*", "normal 0.02"))
"""Initial values by pattern of the weight's name, first match; by name and index, so alike on every mesh."""


class Linear(nn.Module):
    """y = x Wᵀ, without a bias."""

    weight: Tensor

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class RMSNorm(nn.Module):
    def __init__(self, hidden: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(hidden))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Causal multi-head or grouped-query attention with rotary positions."""

    def __init__(self, hidden: int, heads: int, kv_heads: int, head_dim: int):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.wq = Linear(hidden, heads * head_dim)
        self.wk = Linear(hidden, kv_heads * head_dim)
        self.wv = Linear(hidden, kv_heads * head_dim)
        self.wo = Linear(heads * head_dim, hidden)

    def forward(self, h: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, seq, _ = h.shape
        q = self.wq(h).view(batch, seq, self.heads, self.head_dim).transpose(1, 2)
        k = self.wk(h).view(batch, seq, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.wv(h).view(batch, seq, self.kv_heads, self.head_dim).transpose(1, 2)
        q = q * cos + rotate_half(q) * sin
        k = k * cos + rotate_half(k) * sin
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.heads != self.kv_heads)
        return self.wo(a.transpose(1, 2).reshape(batch, seq, self.heads * self.head_dim))


def rotate_half(x: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return torch.cat((-high, low), dim=-1)


def rotary_tables(seq: int, head_dim: int, base: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of position times frequency, [T, head_dim] each (su et al., RoFormer; halves, not pairs)."""
    steps = torch.arange(0, head_dim, 2, dtype=torch.float32, device=like.device)
    frequency = base ** (-steps / head_dim)
    angle = torch.arange(seq, dtype=torch.float32, device=like.device)[:, None] * frequency
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


class FeedForward(nn.Module):
    """Dense: gelu, or gated silu."""

    def __init__(self, hidden: int, ffn: int, gated: bool):
        super().__init__()
        self.gate = Linear(hidden, ffn) if gated else None
        self.up = Linear(hidden, ffn)
        self.down = Linear(ffn, hidden)

    def forward(self, h: Tensor) -> Tensor:
        up = self.up(h)
        act = F.silu(self.gate(h)) * up if self.gate is not None else F.gelu(up)
        return self.down(act)


class Experts(nn.Module):
    """Routed feed-forward; the router works in float32."""

    def __init__(
        self,
        hidden: int,
        experts: int,
        expert_ffn: int,
        top_k: int,
        capacity: int | None,
        group: str,
        gated: bool,
        softmax_first: bool,
    ):
        super().__init__()
        self.experts, self.top_k, self.capacity, self.group = experts, top_k, capacity, group
        self.softmax_first = softmax_first
        self.router = Linear(hidden, experts)
        self.gate = nn.Parameter(torch.empty(experts, expert_ffn, hidden)) if gated else None
        self.up = nn.Parameter(torch.empty(experts, expert_ffn, hidden))
        self.down = nn.Parameter(torch.empty(experts, hidden, expert_ffn))

    def forward(self, h: Tensor) -> Tensor:
        logits = F.linear(h.float(), self.router.weight.float())
        prob, expert, place = route(logits, self.top_k, self.capacity, self.group, self.softmax_first)
        rows = dispatch(h, expert, place, self.experts, self.capacity, self.group)
        up = grouped_linear(rows, self.up)
        act = F.silu(grouped_linear(rows, self.gate)) * up if self.gate is not None else F.gelu(up)
        rows = grouped_linear(act, self.down)
        return collect(rows, prob, expert, place, self.group)


class Layer(nn.Module):
    def __init__(self, attention: Attention, ffn: FeedForward | Experts, hidden: int, eps: float):
        super().__init__()
        self.attn_norm = RMSNorm(hidden, eps)
        self.attn = attention
        self.ffn_norm = RMSNorm(hidden, eps)
        self.ffn = ffn

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.attn_norm(x), cos, sin)
        return x + self.ffn(self.ffn_norm(x))


class Decoder(nn.Module):
    """Tokens and next tokens [B, T] -> (sum of the cross-entropies, number of valid positions)."""

    def __init__(
        self, layers: list[Layer], hidden: int, head_dim: int, vocab: int, tied: bool, eps: float, rope_base: float
    ):
        super().__init__()
        self.head_dim, self.rope_base = head_dim, rope_base
        self.embed = nn.Embedding(vocab, hidden)
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(hidden, eps)
        self.head = Linear(hidden, vocab)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(tokens)
        cos, sin = rotary_tables(tokens.shape[1], self.head_dim, self.rope_base, x)
        for layer in self.layers:
            x = layer(x, cos, sin)
        logits = self.head(self.norm(x)).float()
        loss = F.cross_entropy(logits.transpose(1, 2), labels, reduction="sum")
        count = (labels != -100).sum()
        return loss, count

"""A decoder with what moec's described one lacks: latent attention, experts beside a shared one, dense first layers.

DeepSeek-V2 and V3 (arXiv 2405.04434, 2412.19437) have all three, Qwen2-57B-A14B (arXiv 2407.10671) a shared expert.
Of a router only what takes time is here: a softmax and the choice of the best, without groups, biases and losses.
Legend: B sequences, S positions, D hidden, H heads.
"""

from fractions import Fraction

import torch
import torch.nn.functional as F
from models.gpt import attention
from torch import Tensor, nn

from moec.runtime.routing import capacity_of, collect, dispatch, grouped_linear, route


class Sparse(nn.Module):
    """Tokens and next tokens [B, S] -> (sum of cross-entropies, number of valid positions)."""

    def __init__(
        self,
        layers: int,
        dense_layers: int,
        hidden: int,
        heads: int,
        head_dim: int,
        ffn: int,
        vocab: int,
        seq: int,
        experts: int,
        top_k: int,
        expert_ffn: int,
        shared_ffn: int = 0,
        capacity: float = 0.0,
        kv_heads: int = 0,
        query_rank: int = 0,
        key_rank: int = 0,
        rotary: int = 0,
        value_dim: int = 0,
        predicted: int = 0,
        fused_attention: bool = True,
    ):
        super().__init__()
        self.rotary = rotary or head_dim
        room = capacity_of(seq, top_k, experts, Fraction(capacity)) if capacity else None

        def attending() -> Attention | LatentAttention:
            if query_rank:
                ranks = query_rank, key_rank
                return LatentAttention(hidden, heads, head_dim, *ranks, rotary, value_dim, fused_attention)
            return Attention(hidden, heads, kv_heads or heads, head_dim)

        def mixture() -> Mixture:
            return Mixture(hidden, experts, top_k, expert_ffn, shared_ffn, room)

        self.embed = nn.Embedding(vocab, hidden)
        self.layers = nn.ModuleList(
            Layer(hidden, attending(), FeedForward(hidden, ffn) if index < dense_layers else mixture())
            for index in range(layers)
        )
        self.ahead = nn.ModuleList(Ahead(hidden, Layer(hidden, attending(), mixture())) for _ in range(predicted))
        self.norm = nn.RMSNorm(hidden)
        self.head = nn.Linear(hidden, vocab, bias=False)

    def forward(self, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embed(tokens)
        cos, sin = rotary_tables(tokens.shape[1], self.rotary, x)
        for layer in self.layers:
            x = layer(x, cos, sin)
        loss = self.loss(x, labels)
        for ahead in self.ahead:
            x = ahead(x, self.embed(labels.clamp_min(0)), cos, sin)
            labels = labels.roll(-1, 1)
            loss = loss + 0.1 * self.loss(x, labels)
        return loss, (labels != -100).sum()

    def loss(self, x: Tensor, labels: Tensor) -> Tensor:
        logits = self.head(self.norm(x)).float()
        return F.cross_entropy(logits.transpose(1, 2), labels, reduction="sum")


class Ahead(nn.Module):
    """A layer that goes on with the tokens that came next (DeepSeek-V3, section 2.2)."""

    def __init__(self, hidden: int, layer: "Layer"):
        super().__init__()
        self.norm, self.token_norm = nn.RMSNorm(hidden), nn.RMSNorm(hidden)
        self.project = nn.Linear(2 * hidden, hidden, bias=False)
        self.layer = layer

    def forward(self, x: Tensor, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = self.project(torch.cat((self.norm(x), self.token_norm(tokens)), dim=-1))
        return self.layer(x, cos, sin)


class Layer(nn.Module):
    def __init__(self, hidden: int, attention: "Attention | LatentAttention", ffn: "FeedForward | Mixture"):
        super().__init__()
        self.attn_norm = nn.RMSNorm(hidden)
        self.attn = attention
        self.ffn_norm = nn.RMSNorm(hidden)
        self.ffn = ffn

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.attn_norm(x), cos, sin)
        return x + self.ffn(self.ffn_norm(x))


class Attention(nn.Module):
    """Causal, heads sharing keys and values, rotary positions."""

    def __init__(self, hidden: int, heads: int, kv_heads: int, head_dim: int):
        super().__init__()
        self.head_dim, self.shared = head_dim, heads != kv_heads
        self.query = nn.Linear(hidden, heads * head_dim, bias=False)
        self.key = nn.Linear(hidden, kv_heads * head_dim, bias=False)
        self.value = nn.Linear(hidden, kv_heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, hidden, bias=False)

    def forward(self, h: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q = turned(by_head(self.query(h), self.head_dim), cos, sin)
        k = turned(by_head(self.key(h), self.head_dim), cos, sin)
        v = by_head(self.value(h), self.head_dim)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.shared)
        return self.out(a.transpose(1, 2).flatten(2))


class LatentAttention(nn.Module):
    """Causal; queries, and keys with values, come from vectors of few dims; one rotary key serves all heads."""

    def __init__(
        self,
        hidden: int,
        heads: int,
        head_dim: int,
        query_rank: int,
        key_rank: int,
        rotary: int,
        value_dim: int,
        fused: bool,
    ):
        super().__init__()
        self.fused = fused
        self.heads, self.head_dim, self.rotary, self.value_dim = heads, head_dim, rotary, value_dim
        self.query_down = nn.Linear(hidden, query_rank, bias=False)
        self.key_down = nn.Linear(hidden, key_rank, bias=False)
        self.rotary_key = nn.Linear(hidden, rotary, bias=False)
        self.query_norm, self.key_norm = nn.RMSNorm(query_rank), nn.RMSNorm(key_rank)
        self.query = nn.Linear(query_rank, heads * head_dim, bias=False)
        self.rotary_query = nn.Linear(query_rank, heads * rotary, bias=False)
        self.key = nn.Linear(key_rank, heads * head_dim, bias=False)
        self.value = nn.Linear(key_rank, heads * value_dim, bias=False)
        self.out = nn.Linear(heads * value_dim, hidden, bias=False)

    def forward(self, h: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, shared = self.query_norm(self.query_down(h)), self.key_norm(self.key_down(h))
        q_turned = turned(by_head(self.rotary_query(q), self.rotary), cos, sin)
        q = torch.cat((by_head(self.query(q), self.head_dim), q_turned), dim=-1)
        k_turned = turned(by_head(self.rotary_key(h), self.rotary), cos, sin)
        k = torch.cat((by_head(self.key(shared), self.head_dim), k_turned.expand(-1, self.heads, -1, -1)), dim=-1)
        v = by_head(self.value(shared), self.value_dim)
        fused = F.scaled_dot_product_attention
        a = fused(q, k, v, is_causal=True) if self.fused else attention(q, k, v, dropout=False)
        return self.out(a.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, hidden: int, ffn: int):
        super().__init__()
        self.gate = nn.Linear(hidden, ffn, bias=False)
        self.up = nn.Linear(hidden, ffn, bias=False)
        self.down = nn.Linear(ffn, hidden, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(h)) * self.up(h))


class Mixture(nn.Module):
    """Experts that a router chooses, and one that every token takes."""

    def __init__(self, hidden: int, experts: int, top_k: int, expert_ffn: int, shared_ffn: int, room: int | None):
        super().__init__()
        self.count, self.top_k, self.room = experts, top_k, room
        self.router = nn.Linear(hidden, experts, bias=False)
        self.gate = nn.Parameter(torch.empty(experts, expert_ffn, hidden))
        self.up = nn.Parameter(torch.empty(experts, expert_ffn, hidden))
        self.down = nn.Parameter(torch.empty(experts, hidden, expert_ffn))
        self.shared = FeedForward(hidden, shared_ffn) if shared_ffn else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in (self.gate, self.up, self.down):
            nn.init.normal_(weight, std=0.02)

    def forward(self, h: Tensor) -> Tensor:
        logits = F.linear(h, self.router.weight).float()  # Megatron-LM's is one product of 16 bits with sums in 32
        prob, expert, place = route(logits, self.top_k, self.room)
        rows = dispatch(h, expert, place, self.count, self.room)
        rows = grouped_linear(F.silu(grouped_linear(rows, self.gate)) * grouped_linear(rows, self.up), self.down)
        routed = collect(rows, prob, expert, place)
        return routed if self.shared is None else routed + self.shared(h)


def by_head(x: Tensor, head_dim: int) -> Tensor:
    """[B, S, H * head_dim] -> [B, H, S, head_dim]."""
    return x.unflatten(2, (-1, head_dim)).transpose(1, 2)


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


def rotary_tables(seq: int, rotary: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin of position times frequency, [S, rotary] each."""
    steps = torch.arange(0, rotary, 2, dtype=torch.float32, device=like.device)
    angle = torch.arange(seq, dtype=torch.float32, device=like.device)[:, None] * 10_000.0 ** (-steps / rotary)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)

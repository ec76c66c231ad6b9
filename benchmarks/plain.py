"""The module that moec compiles, unsharded, under plain autograd: a contestant, and what the rivals must equal."""

from collections.abc import Mapping

import torch
from rivals.workload import Batch, Sizes, Where, initial
from torch import Tensor, nn

from moec.compiler.models import decoder


class Plain:
    """The module that moec compiles, unsharded; every rank trains all of it."""

    def setup(self, rank: int, world: int, mesh: Mapping[str, int], sizes: Sizes) -> None:
        self.sizes, self.where = sizes, Where.of(0, {})
        layers = [
            decoder.Layer(attention(sizes), experts(sizes), sizes.hidden, sizes.norm_eps) for _ in range(sizes.layers)
        ]
        self.model = decoder.Decoder(
            layers, sizes.hidden, sizes.head_dim, sizes.vocab, False, sizes.norm_eps, sizes.rope_base
        )
        for name, weight in self.model.named_parameters():
            weight.data = initial(sizes, name, tuple(weight.shape))
        betas = (sizes.beta1, sizes.beta2)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), sizes.lr, betas, sizes.eps, weight_decay=0.0, fused=True
        )

    def step(self, batch: Batch) -> float:
        self.optimizer.zero_grad()
        total = 0.0
        for i in range(self.sizes.accumulate):
            loss: Tensor = self.model(*batch.read(i, self.where, self.sizes))[0] / self.sizes.tokens
            loss.backward()
            total += float(loss.detach())
        if self.sizes.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.sizes.clip)
        self.optimizer.step()
        return total


def attention(s: Sizes) -> decoder.Attention:
    return decoder.Attention(s.hidden, s.heads, s.heads, s.head_dim)


def experts(s: Sizes) -> decoder.Experts:
    return decoder.Experts(s.hidden, s.experts, s.expert_ffn, 1, s.rows, "per_sequence", False, True)

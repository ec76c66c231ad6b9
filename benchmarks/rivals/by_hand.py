"""The step by hand in Megatron's style: autograd functions around collectives on plain tensors, nothing above them.

What an excellent engineer does for speed is done: q, k and v in one matrix; weight gradients added straight into one
flat buffer; the sum of an input's gradient under way while the weight's is computed; one collective for the
vocabulary-parallel loss; sends that nobody waits for; one all_reduce per family of gradients; loss and norm in one
all_reduce; AdamW over whole buffers.

Legend: B sequences, T positions, E experts, C rows of an expert per sequence.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.adamw import adamw

from rivals.functions import AllToAll, CrossEntropy, Embedding, Group, GroupedLinear, Linear, SumBackward, SumForward
from rivals.rotary import rotary_tables, rotate
from rivals.workload import Batch, Sizes, Where, groups_over, initial

Piece = tuple[str, tuple[int, ...], tuple[slice, ...] | None]
"""Name, whole shape and this rank's slice of a weight of the model."""


@dataclass(slots=True)
class Layer:
    attn_norm: Tensor
    qkv: Tensor
    wo: Tensor
    ffn_norm: Tensor
    router: Tensor
    up: Tensor
    down: Tensor


@dataclass(slots=True)
class Family:
    """Weights whose gradients are summed over one group, in one buffer: first those to count in the norm."""

    group: Group
    values: Tensor
    gradients: Tensor
    counted: int  # elements that count in this rank's norm
    mean: Tensor = field(init=False)
    square: Tensor = field(init=False)
    steps: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.mean, self.square = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self.steps = torch.zeros(())


class ByHand:
    def setup(self, rank: int, world: int, mesh: Mapping[str, int], sizes: Sizes) -> None:
        self.sizes, self.where, self.rank = sizes, Where.of(rank, mesh), rank
        self.tp, self.ep = self._group(("tp",), mesh, world), self._group(("ep",), mesh, world)
        self.dp, self.data = self._group(("dp",), mesh, world), self._group(("dp", "ep"), mesh, world)
        line = next(g for g in groups_over(("pp",), mesh, world) if rank in g)
        stage = line.index(rank)
        self.before = line[stage - 1] if stage > 0 else None
        self.after = line[stage + 1] if stage + 1 < len(line) else None
        self._make_weights()
        self.cos, self.sin = rotary_tables(sizes)
        self._sent: list[tuple[dist.Work, Tensor]] = []

    def step(self, batch: Batch) -> float:
        for family in self.families:
            family.gradients.zero_()
        self.losses: list[Tensor] = []
        self._one_forward_one_backward(batch)
        for work, _ in self._sent:
            work.wait()
        self._sent.clear()
        for family in self.families:
            if family.group:
                dist.all_reduce(family.gradients, group=family.group)
        return self._update()

    # ---- Weights.

    def _group(self, axes: tuple[str, ...], mesh: Mapping[str, int], world: int) -> Group:
        mine = None
        for ranks in groups_over(axes, mesh, world):
            made = dist.new_group(ranks) if len(ranks) > 1 else None
            mine = made if self.rank in ranks else mine
        return mine

    def _make_weights(self) -> None:
        s, where = self.sizes, self.where
        heads, ffn = where.part("tp", s.hidden), where.part("tp", s.expert_ffn)
        vocab, experts, whole = where.part("tp", s.vocab), where.part("ep", s.experts), slice(0, s.hidden)
        square = (s.hidden, s.hidden)
        split: dict[str, list[Piece]] = {}  # dense, split over tp
        same: dict[str, list[Piece]] = {}  # dense, alike on all tp ranks
        routed: dict[str, list[Piece]] = {}
        if self.before is None:
            split["embed"] = [("embed.weight", (s.vocab, s.hidden), (vocab, whole))]
        if self.after is None:
            split["head"] = [("head.weight", (s.vocab, s.hidden), (vocab, whole))]
            same["norm"] = [("norm.weight", (s.hidden,), None)]
        for i in where.layers(s):
            p = f"layers.{i}"
            split[f"{p}.qkv"] = [(f"{p}.attn.w{x}.weight", square, (heads, whole)) for x in "qkv"]
            split[f"{p}.wo"] = [(f"{p}.attn.wo.weight", square, (whole, heads))]
            same[f"{p}.attn_norm"] = [(f"{p}.attn_norm.weight", (s.hidden,), None)]
            same[f"{p}.ffn_norm"] = [(f"{p}.ffn_norm.weight", (s.hidden,), None)]
            same[f"{p}.router"] = [(f"{p}.ffn.router.weight", (s.experts, s.hidden), None)]
            routed[f"{p}.up"] = [(f"{p}.ffn.up", (s.experts, s.expert_ffn, s.hidden), (experts, ffn, whole))]
            routed[f"{p}.down"] = [(f"{p}.ffn.down", (s.experts, s.hidden, s.expert_ffn), (experts, whole, ffn))]
        dense, dense_family = self._family({**split, **same}, self.data, len(split))
        routed_weights, routed_family = self._family(routed, self.dp, len(routed))
        first = where.at["tp"] == 0
        if where.replica > 0:
            dense_family.counted = 0
        elif first:
            dense_family.counted = len(dense_family.values)
        if where.at["dp"] > 0:
            routed_family.counted = 0
        self.families = (dense_family, routed_family)
        self.weights = {**dense, **routed_weights}
        names = Layer.__dataclass_fields__
        self.layers = [Layer(*(self.weights[f"layers.{i}.{name}"] for name in names)) for i in where.layers(s)]

    def _family(
        self, named: Mapping[str, Sequence[Piece]], group: Group, counted: int
    ) -> tuple[dict[str, nn.Parameter], Family]:
        """All in one buffer; the first `counted` of them are counted in the norm."""
        tensors = {name: torch.cat([initial(self.sizes, *piece) for piece in pieces]) for name, pieces in named.items()}
        values = torch.zeros(sum(aligned(x.numel()) for x in tensors.values()))
        gradients = torch.zeros_like(values)
        weights, end, mark = {}, 0, 0
        for n, (name, tensor) in enumerate(tensors.items()):
            span = slice(end, end + tensor.numel())
            end += aligned(tensor.numel())
            mark = end if n < counted else mark
            values[span] = tensor.flatten()
            weights[name] = nn.Parameter(values[span].view(tensor.shape))
            weights[name].grad = gradients[span].view(tensor.shape)
        return weights, Family(group, values, gradients, mark)

    # ---- The model.

    def _forward(self, batch: Batch, i: int, x: Tensor | None) -> Tensor:
        """The stage's output, or of the last stage the loss."""
        tokens = labels = None
        if self.before is None or self.after is None:
            tokens, labels = batch.read(i, self.where, self.sizes)
        if x is None:
            assert tokens is not None
            first = self.where.part("tp", self.sizes.vocab).start
            x = self._sum(Embedding.apply(self.weights["embed"], tokens, first))
        for layer in self.layers:
            x = x + self._attention(layer, F.rms_norm(x, layer.attn_norm.shape, layer.attn_norm, self.sizes.norm_eps))
            x = x + self._experts(layer, F.rms_norm(x, layer.ffn_norm.shape, layer.ffn_norm, self.sizes.norm_eps))
        if self.after is not None:
            return x
        assert labels is not None
        return self._loss(x, labels)

    def _attention(self, layer: Layer, h: Tensor) -> Tensor:
        qkv = Linear.apply(h, layer.qkv, self.tp).unflatten(-1, (3, -1, self.sizes.head_dim))  # [B, T, 3, heads, d]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        q, k = rotate(q, self.cos, self.sin), rotate(k, self.cos, self.sin)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self._sum(Linear.apply(a.transpose(1, 2).flatten(2), layer.wo, None))

    def _experts(self, layer: Layer, h: Tensor) -> Tensor:
        batch, count, rows = len(h), self.sizes.experts, self.sizes.rows
        prob, expert = Linear.apply(h, layer.router, None).softmax(-1).max(-1)  # the lower expert on a tie
        taken = F.one_hot(expert, count)
        place = ((taken.cumsum(1) - 1) * taken).sum(-1)
        kept = place < rows
        slot = (expert * batch + torch.arange(batch).unsqueeze(-1)) * rows + place  # of [E, B, C]
        slot = slot.masked_fill_(~kept, count * batch * rows).flatten()
        prob = prob * kept
        if self.tp:
            h, prob = SumBackward.apply(h, prob, self.tp)
        x = h.new_zeros(count * batch * rows + 1, h.shape[-1]).index_copy(0, slot, h.flatten(0, 1))[:-1]
        ranks = self.where.size["ep"]
        if self.ep:
            x = AllToAll.apply(x, self.ep).view(ranks, count // ranks, -1, x.shape[-1]).transpose(0, 1).flatten(1, 2)
        else:
            x = x.view(count, -1, x.shape[-1])
        x = GroupedLinear.apply(F.gelu(GroupedLinear.apply(x, layer.up)), layer.down)
        if self.ep:
            x = AllToAll.apply(x.unflatten(1, (ranks, -1)).transpose(0, 1).contiguous(), self.ep)
        found = x.reshape(-1, x.shape[-1]).index_select(0, slot.clamp(max=count * batch * rows - 1))
        return self._sum(found.view_as(h) * prob.unsqueeze(-1))

    def _loss(self, x: Tensor, labels: Tensor) -> Tensor:
        x = F.rms_norm(x, self.weights["norm"].shape, self.weights["norm"], self.sizes.norm_eps)
        logits = Linear.apply(x, self.weights["head"], self.tp).flatten(0, 1)
        if self.tp:
            first = self.where.part("tp", self.sizes.vocab).start
            loss = CrossEntropy.apply(logits, labels.flatten(), first, self.tp)
        else:
            loss = F.cross_entropy(logits, labels.flatten(), reduction="sum")
        loss = loss / self.sizes.tokens
        self.losses.append(loss.detach())
        return loss

    def _sum(self, x: Tensor) -> Tensor:
        return SumForward.apply(x, self.tp) if self.tp else x

    # ---- The schedule.

    def _one_forward_one_backward(self, batch: Batch) -> None:
        microbatches = self.sizes.accumulate
        ahead = min(microbatches, self.where.size["pp"] - 1 - self.where.at["pp"])
        running: deque[tuple[Tensor | None, Tensor]] = deque()
        for i in range(ahead):
            x = self._transfer(None, None, self.before)
            y = self._forward(batch, i, x)
            self._transfer(y, self.after, None)
            running.append((x, y))
        x = self._transfer(None, None, self.before) if ahead < microbatches else None
        for i in range(ahead, microbatches):
            y = self._forward(batch, i, x)
            g = self._transfer(y, self.after, self.after)
            running.append((x, y))
            gx = self._backward(*running.popleft(), g)
            x = self._transfer(gx, self.before, self.before if i + 1 < microbatches else None)
        while running:
            g = self._transfer(None, None, self.after)
            self._transfer(self._backward(*running.popleft(), g), self.before, None)

    @staticmethod
    def _backward(x: Tensor | None, y: Tensor, g: Tensor | None) -> Tensor | None:
        torch.autograd.backward(y, g)
        return None if x is None else x.grad

    def _transfer(self, x: Tensor | None, to: int | None, source: int | None) -> Tensor | None:
        """Send without waiting, receive with; both at once."""
        operations, arrived = [], None
        if to is not None:
            assert x is not None
            operations.append(dist.P2POp(dist.isend, x.detach().contiguous(), to))
        if source is not None:
            count = self.sizes.batch // self.sizes.accumulate // self.where.replicas
            arrived = torch.empty(count, self.sizes.seq, self.sizes.hidden)
            operations.append(dist.P2POp(dist.irecv, arrived, source))
        if operations:
            works = dist.batch_isend_irecv(operations)
            if to is not None:
                self._sent.append((works[0], operations[0].tensor))
            if source is not None:
                works[-1].wait()
        return None if arrived is None else arrived.requires_grad_()

    # ---- The update.

    def _update(self) -> float:
        """Loss and norm of all ranks in one sum, then AdamW."""
        total = torch.zeros(2, dtype=torch.float64)
        if self.losses and self.where.at["tp"] == 0:
            total[0] = torch.stack(self.losses).sum()
        if self.sizes.clip is not None:
            total[1] = sum(torch.linalg.vector_norm(f.gradients[: f.counted]).square() for f in self.families)
        dist.all_reduce(total)
        loss, square = total.tolist()
        factor = 1.0 if self.sizes.clip is None else min(1.0, self.sizes.clip / (sqrt(square) + 1e-6))
        for family in self.families:
            if factor < 1.0:
                family.gradients.mul_(factor)
            self._adamw(family)
        return loss

    def _adamw(self, family: Family) -> None:
        s = self.sizes
        adamw(
            [family.values],
            [family.gradients],
            [family.mean],
            [family.square],
            [],
            [family.steps],
            fused=True,
            amsgrad=False,
            beta1=s.beta1,
            beta2=s.beta2,
            lr=s.lr,
            weight_decay=0.0,
            eps=s.eps,
            maximize=False,
        )


def aligned(count: int) -> int:
    return -(-count // 16) * 16

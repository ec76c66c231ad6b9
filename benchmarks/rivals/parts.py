"""The step as a good engineer assembles it today from PyTorch's own parts.

Tensor parallelism by parallelize_module (no DTensor where tp is 1), experts by all_to_all_single with autograd,
stages by torch.distributed.pipelining's Schedule1F1B, data parallelism by DistributedDataParallel where there is no
DTensor, which it does not take, else one flat all_reduce. Every reduction is a sum.

Legend: B sequences, T positions, H hidden, E experts, C rows of an expert per sequence, V vocabulary.
"""

import warnings
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from math import sqrt

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.nn.functional import all_to_all_single
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_module, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel

from rivals.rotary import rotary_tables, rotate
from rivals.workload import Batch, Sizes, Where, initial

# all_to_all_single of torch.distributed.nn is deprecated, but its successor is 2 to 11 % slower over a step here.
warnings.filterwarnings("ignore", "torch.distributed.nn.functional.all_to_all_single", FutureWarning)


class Attention(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        self.head_dim = sizes.head_dim
        self.wq = nn.Linear(sizes.hidden, sizes.hidden, bias=False)
        self.wk = nn.Linear(sizes.hidden, sizes.hidden, bias=False)
        self.wv = nn.Linear(sizes.hidden, sizes.hidden, bias=False)
        self.wo = nn.Linear(sizes.hidden, sizes.hidden, bias=False)

    def forward(self, h: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k, v = (w(h).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        a = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        return self.wo(a.transpose(1, 2).flatten(2))


class Experts(nn.Module):
    """This rank's experts; under tp their weights are DTensors, and the rows are split by hand."""

    def __init__(self, sizes: Sizes, count: int):
        super().__init__()
        self.up = nn.Parameter(torch.empty(count, sizes.expert_ffn, sizes.hidden))
        self.down = nn.Parameter(torch.empty(count, sizes.hidden, sizes.expert_ffn))

    def forward(self, rows: Tensor) -> Tensor:
        up, down = (w.to_local() if isinstance(w, DTensor) else w for w in (self.up, self.down))
        return torch.bmm(F.gelu(torch.bmm(rows, up.transpose(1, 2))), down.transpose(1, 2))


class MoE(nn.Module):
    def __init__(self, sizes: Sizes, where: Where, ep: dist.ProcessGroup | None):
        super().__init__()
        self.sizes, self.ep, self.ranks = sizes, ep, where.size["ep"]
        self.router = nn.Linear(sizes.hidden, sizes.experts, bias=False)
        self.experts = Experts(sizes, sizes.experts // self.ranks)

    def forward(self, h: Tensor) -> Tensor:
        batch, count, room = len(h), self.sizes.experts, self.sizes.rows
        prob, expert = self.router(h).softmax(-1).max(-1)
        taken = F.one_hot(expert, count)
        place = ((taken.cumsum(1) - 1) * taken).sum(-1)
        kept = place < room
        slot = (expert * batch + torch.arange(batch, device=h.device).unsqueeze(-1)) * room + place  # of [E, B, C]
        slot = torch.where(kept, slot, count * batch * room).flatten()
        rows = h.new_zeros(count * batch * room + 1, h.shape[-1]).index_copy(0, slot, h.flatten(0, 1))[:-1]
        if self.ep is not None:
            rows = all_to_all_single(torch.empty_like(rows), rows, group=self.ep)
            rows = rows.view(self.ranks, count // self.ranks, -1, rows.shape[-1]).transpose(0, 1).flatten(1, 2)
            rows = self.experts(rows).unflatten(1, (self.ranks, -1)).transpose(0, 1).flatten(0, 2)
            rows = all_to_all_single(torch.empty_like(rows), rows.contiguous(), group=self.ep)
        else:
            rows = self.experts(rows.view(count, -1, rows.shape[-1])).flatten(0, 1)
        found = rows.index_select(0, slot.clamp(max=len(rows) - 1)).view_as(h)
        return found * (prob * kept).unsqueeze(-1)


class Layer(nn.Module):
    def __init__(self, sizes: Sizes, where: Where, ep: dist.ProcessGroup | None):
        super().__init__()
        self.attn_norm = nn.RMSNorm(sizes.hidden, sizes.norm_eps)
        self.attn = Attention(sizes)
        self.ffn_norm = nn.RMSNorm(sizes.hidden, sizes.norm_eps)
        self.ffn = MoE(sizes, where, ep)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.attn_norm(x), cos, sin)
        return x + self.ffn(self.ffn_norm(x))


class Stage(nn.Module):
    """Tokens [B, T] or activations [B, T, H] -> activations, or at the end logits [B, T, V]."""

    def __init__(self, sizes: Sizes, where: Where, ep: dist.ProcessGroup | None):
        super().__init__()
        first, last = where.at["pp"] == 0, where.at["pp"] == where.size["pp"] - 1
        self.embed = nn.Embedding(sizes.vocab, sizes.hidden) if first else None
        self.layers = nn.ModuleDict({str(i): Layer(sizes, where, ep) for i in where.layers(sizes)})
        self.norm = nn.RMSNorm(sizes.hidden, sizes.norm_eps) if last else None
        self.head = nn.Linear(sizes.hidden, sizes.vocab, bias=False) if last else None
        cos, sin = rotary_tables(sizes)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.embed is not None:
            x = self.embed(x)
        for layer in self.layers.values():
            x = layer(x, self.cos, self.sin)
        return x if self.norm is None or self.head is None else self.head(self.norm(x))


class Parts:
    def setup(self, rank: int, world: int, mesh: Mapping[str, int], sizes: Sizes) -> None:
        self.sizes, self.where = sizes, Where.of(rank, mesh)
        full = mesh if "pp" in mesh else {"pp": 1, **mesh}
        self.mesh = init_device_mesh("cpu", tuple(full.values()), mesh_dim_names=tuple(full))
        ep = self.mesh["ep"].get_group() if self.where.size["ep"] > 1 else None
        with torch.device("meta"):
            stage = Stage(sizes, self.where, ep)
        stage = stage.to_empty(device="cpu")
        stage.cos, stage.sin = rotary_tables(sizes)
        self.tensor_parallel = self.where.size["tp"] > 1
        if self.tensor_parallel:
            parallelize(stage, self.mesh["tp"])
        self._initialise(stage)
        self.dense = [w for name, w in stage.named_parameters() if ".experts." not in name]
        self.experts = [w for name, w in stage.named_parameters() if ".experts." in name]
        self._replicate(stage)
        self.losses: list[Tensor] = []
        self._schedule = self._pipeline(rank) if self.where.size["pp"] > 1 else None
        self.optimizer = self._optimizer()

    def step(self, batch: Batch) -> float:
        self.optimizer.zero_grad()
        self.losses = []
        with loss_parallel() if self.tensor_parallel else nullcontext():
            if self._schedule is None:
                self._accumulate(batch)
            else:
                self._run_schedule(self._schedule, batch)
        align_gradients(self.dense)
        if self.data is not None and not isinstance(self.stage, DistributedDataParallel):
            sum_gradients(self.dense, self.data)
        if self.replicas is not None:
            sum_gradients(self.experts, self.replicas)
        loss, norm = self._totals()
        if self.sizes.clip is not None:
            factor = min(1.0, self.sizes.clip / (norm + 1e-6))
            torch._foreach_mul_([local(w.grad) for w in (*self.dense, *self.experts) if w.grad is not None], factor)
        self.optimizer.step()
        return loss

    # ---- Setting up.

    def _initialise(self, stage: nn.Module) -> None:
        s, e = self.sizes, self.where.part("ep", self.sizes.experts)
        for name, weight in stage.named_parameters():
            logical, shape = name.replace(".experts.", "."), tuple(weight.shape)
            if ".experts." in name:
                piece = (e, slice(0, shape[1]), slice(0, shape[2]))
                values = initial(s, logical, (s.experts, *shape[1:]), piece)
            else:
                values = initial(s, logical, shape)
            if isinstance(weight, DTensor):
                values = distribute_tensor(values, weight.device_mesh, weight.placements, src_data_rank=None)
            with torch.no_grad():
                weight.copy_(values)

    def _replicate(self, stage: Stage) -> None:
        """Who sums gradients with whom: dense weights over dp and ep, experts over dp."""
        axes = tuple(axis for axis in ("dp", "ep") if self.where.size[axis] > 1)
        self.replicas = self.mesh["dp"].get_group() if "dp" in axes else None
        self.data = None
        self.stage: nn.Module = stage
        if axes:
            together = self.mesh[axes]._flatten("data") if len(axes) > 1 else self.mesh[axes[0]]
            self.data = together.get_group()
        if self.data is not None and not self.tensor_parallel:
            mine = [name for name, _ in stage.named_parameters() if ".experts." in name]
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(stage, [*mine, "cos", "sin"])
            self.stage = DistributedDataParallel(stage, process_group=self.data, gradient_as_bucket_view=True)
            self.stage.register_comm_hook(self.data, sum_bucket)

    def _pipeline(self, rank: int) -> Schedule1F1B:
        s, where = self.sizes, self.where
        stages, at, count = where.size["pp"], where.at["pp"], s.batch // s.accumulate // where.replicas
        activations = torch.empty(count, s.seq, s.hidden, device="meta", requires_grad=True)
        tokens = torch.empty(count, s.seq, dtype=torch.int64, device="meta")
        logits = torch.empty(count, s.seq, s.vocab, device="meta")
        stage = PipelineStage(
            self.stage,
            at,
            stages,
            torch.device("cpu"),
            input_args=tokens if at == 0 else activations,
            output_args=logits if at == stages - 1 else activations,
            group=self.mesh["pp"].get_group(),
        )
        return Schedule1F1B(stage, s.accumulate, loss_fn=self._loss, scale_grads=False)

    def _optimizer(self) -> torch.optim.Optimizer:
        s, weights = self.sizes, [*self.dense, *self.experts]
        groups = [[w for w in weights if isinstance(w, DTensor)], [w for w in weights if not isinstance(w, DTensor)]]
        betas = (s.beta1, s.beta2)
        named = [{"params": group} for group in groups if group]
        return torch.optim.AdamW(named, s.lr, betas, s.eps, weight_decay=0.0, fused=True)

    # ---- A step.

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / self.sizes.tokens

    def _accumulate(self, batch: Batch) -> None:
        for i in range(self.sizes.accumulate):
            tokens, labels = batch.read(i, self.where, self.sizes)
            last = i + 1 == self.sizes.accumulate
            waits = isinstance(self.stage, DistributedDataParallel) and not last
            with self.stage.no_sync() if waits else nullcontext():
                loss = self._loss(self.stage(tokens), labels)
                loss.backward()
            self.losses.append(local(loss.detach()))

    def _run_schedule(self, schedule: Schedule1F1B, batch: Batch) -> None:
        first, last = self.where.at["pp"] == 0, self.where.at["pp"] == self.where.size["pp"] - 1
        if not (first or last):
            schedule.step()
            return
        read = [batch.read(i, self.where, self.sizes) for i in range(self.sizes.accumulate)]
        tokens, labels = (torch.cat(parts) for parts in zip(*read, strict=True))
        losses: list[Tensor] = []
        if last:
            schedule.step(*([tokens] if first else []), target=labels, losses=losses, return_outputs=False)
        else:
            schedule.step(tokens, return_outputs=False)
        self.losses = [local(loss.detach()) for loss in losses]

    def _totals(self) -> tuple[float, float]:
        """Loss and norm of all ranks. A weight that several ranks hold counts on the first of them."""
        at, total = self.where.at, torch.zeros(2, dtype=torch.float64)
        if self.losses and at["tp"] == 0:
            total[0] = torch.stack(self.losses).sum()
        if self.sizes.clip is not None:
            dense = (
                [w for w in self.dense if isinstance(w, DTensor) or at["tp"] == 0] if self.where.replica == 0 else []
            )
            counted = [*dense, *(self.experts if at["dp"] == 0 else [])]
            if counted:
                total[1] = torch.nn.utils.get_total_norm([local(w.grad) for w in counted if w.grad is not None]) ** 2
        dist.all_reduce(total)
        loss, square = total.tolist()
        return loss, sqrt(square)


def parallelize(stage: Stage, mesh: DeviceMesh) -> None:
    plan = {}
    if stage.embed is not None:
        plan["embed"] = RowwiseParallel(input_layouts=Replicate())
    if stage.head is not None:
        plan["head"] = ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)
    for i in stage.layers:
        plan |= {
            f"layers.{i}.attn": PrepareModuleInput(
                input_layouts=(Replicate(), None, None), desired_input_layouts=(Replicate(), None, None)
            ),
            f"layers.{i}.attn.wq": ColwiseParallel(),
            f"layers.{i}.attn.wk": ColwiseParallel(),
            f"layers.{i}.attn.wv": ColwiseParallel(),
            f"layers.{i}.attn.wo": RowwiseParallel(),
        }
    parallelize_module(stage, mesh, plan)
    for layer in stage.layers.values():
        split_experts(layer.ffn.experts, mesh)


def split_experts(experts: Experts, mesh: DeviceMesh) -> None:
    """Their inner dim over the mesh: rows come in replicated, and go out summed."""

    def split(name: str, module: nn.Module, mesh: DeviceMesh) -> None:
        module.up = nn.Parameter(distribute_tensor(module.up, mesh, [Shard(1)], src_data_rank=None))
        module.down = nn.Parameter(distribute_tensor(module.down, mesh, [Shard(2)], src_data_rank=None))

    def come(module: nn.Module, inputs: tuple[Tensor, ...], mesh: DeviceMesh) -> Tensor:
        return DTensor.from_local(inputs[0], mesh, [Replicate()], run_check=False).to_local(grad_placements=[Partial()])

    def go(module: nn.Module, output: Tensor, mesh: DeviceMesh) -> Tensor:
        return (
            DTensor.from_local(output, mesh, [Partial()], run_check=False).redistribute(mesh, [Replicate()]).to_local()
        )

    distribute_module(experts, mesh, split, come, go)


def align_gradients(weights: Iterable[nn.Parameter]) -> None:
    """DTensor leaves some replicated where the weight is split, the embedding's for one."""
    for weight in weights:
        if isinstance(weight, DTensor) and weight.grad.placements != weight.placements:
            weight.grad = weight.grad.redistribute(placements=weight.placements)


def sum_gradients(weights: Iterable[nn.Parameter], group: dist.ProcessGroup) -> None:
    """All in one message."""
    gradients = [local(w.grad) for w in weights if w.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat, group=group)
    parts = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])


def sum_bucket(group: dist.ProcessGroup, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """DistributedDataParallel's own hook would average."""
    work = dist.all_reduce(bucket.buffer(), group=group, async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def local(x: Tensor) -> Tensor:
    return x.to_local() if isinstance(x, DTensor) else x

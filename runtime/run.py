"""What a rank program works with: `step(run)` and the stage's functions take all they need from one `Run`."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from types import ModuleType

import torch
from torch import Tensor

from moec.runtime.communicator import WORLD, Slot, current
from moec.runtime.data import Source
from moec.runtime.job import Job
from moec.runtime.optimizer import AdamW
from moec.runtime.place import Axes, place_of
from moec.runtime.tape import Tape
from moec.runtime.weights import Values, Weights


class NotFinite(RuntimeError):
    """The loss or a gradient is infinite or no number. All ranks raise it in the same step, before any update."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step came to, the same on all ranks."""

    loss: float
    gradient_norm: float


class Run:
    """One rank's run of its program."""

    def __init__(
        self, rank: ModuleType, job: Job, initial: Values, source: Source, device: torch.device | str = "cpu"
    ) -> None:
        stage: ModuleType = rank.stage
        self.job = job
        self.place = place_of(rank)
        self.device = torch.device(device)
        self.weights = Weights.create(stage, rank, initial, job.training.dtype, self.device)
        self.optimizer = AdamW(self.weights, job.training)
        self.tables: dict[str, Tensor] = {}
        if hasattr(stage, "make_tables"):
            self.tables = {name: table.to(self.device) for name, table in stage.make_tables().items()}
        precise = job.training.dtype is torch.float64
        self.seed = torch.tensor(job.seed, dtype=torch.float64 if precise else torch.float32, device=self.device)
        self.step = 0
        self.result: StepResult | None = None  # of the last step
        self._splits: dict[str, tuple[Axes, ...]] = stage.INPUTS if hasattr(stage, "INPUTS") else {}
        self._source = source
        self._tapes: dict[int, Tape] = {}
        self._inputs: tuple[int, dict[str, Tensor]] | None = None
        self._losses: list[Tensor] = []
        self._families = {family.reduce: family for family in self.weights.families}

    def tape(self, i: int) -> Tape:
        """The tape of micro-batch i of this step."""
        if i not in self._tapes:
            self._tapes[i] = Tape()
        return self._tapes[i]

    def inputs(self, i: int) -> dict[str, Tensor]:
        """This rank's slices of the inputs of micro-batch i, those that the stage reads."""
        if self._inputs is None or self._inputs[0] != i:
            self._inputs = i, {name: self._input(name, i) for name in self._splits}
        return self._inputs[1]

    def add_loss(self, x: Tensor, same: str = "") -> None:
        """Count x, this rank's summand of a micro-batch's loss; if the group `same` has the same x, count it once."""
        if not same or current().coordinate(same) == 0:
            self._losses.append(x.detach())

    def send(self, tensors: Sequence[Tensor], rank: int) -> None:
        current().send([x.detach() for x in tensors], rank)

    def receive(self, slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        return current().receive(slots, rank)

    def exchange(self, tensors: Sequence[Tensor], slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        """Send and receive together: neither waits for the other."""
        return current().exchange([x.detach() for x in tensors], slots, rank)

    def reduce(self, family: str) -> None:
        """Sum the gradients of the weights of a family over its group, in place."""
        ranks = current()
        if ranks.size(family) > 1:
            ranks.all_reduce_in_place(self._families[family].gradients, family, f"gradients of {family}")

    def update(self) -> None:
        """End the step: norm and loss of all ranks in one sum, then AdamW, then empty gradients."""
        for tape in self._tapes.values():
            tape.done()
        self.weights.clear_padding()
        self.result, finite = self._total()
        if not finite:
            raise NotFinite(self._first_not_finite())
        self.optimizer.step(self.result.gradient_norm)
        self.weights.zero_gradients()
        self._tapes.clear()
        self._losses.clear()
        self._inputs = None
        self.step += 1

    def _input(self, name: str, i: int) -> Tensor:
        """Read only the samples that are this rank's; the first dim is the batch."""
        samples, *dims = self._splits[name]
        size = self.job.batch // self.job.accumulate
        part = self.place.part(size, samples)
        first = self.step * self.job.batch + i * size
        whole = torch.stack([self._source.sample(first + n)[name] for n in range(part.start, part.stop)])
        where = [self.place.part(n, axes) for n, axes in zip(whole.shape[1:], dims, strict=True)]
        x = whole[(slice(None), *where)].contiguous()
        return x.to(self.device, self.job.training.dtype if x.is_floating_point() else None)

    def _total(self) -> tuple[StepResult, bool]:
        """Loss and norm of all ranks together, and whether all of it is finite on every rank."""
        loss = torch.zeros((), dtype=torch.float64)
        if self._losses:
            loss = torch.stack([x.double() for x in self._losses]).sum() * self.job.seed
        total = torch.stack([x.to(self.device) for x in (loss, *self.optimizer.squared_norm())])
        if current().size(WORLD) > 1:
            current().all_reduce_in_place(total, WORLD, "loss and norm")
        loss, square, spoiled = total.tolist()
        return StepResult(loss, sqrt(square) if square >= 0 else square), spoiled == 0 and isfinite(loss)

    def _first_not_finite(self) -> str:
        """What this rank holds of it; a rank that holds nothing of it says so."""
        if not all(bool(x.isfinite()) for x in self._losses):
            return f"step {self.step + 1}: the loss is not finite"
        for name, shard in self.weights.shards.items():
            if shard.value.grad is not None and not bool(shard.value.grad.isfinite().all()):
                return f"step {self.step + 1}: the gradient of {name} is not finite"
        return f"step {self.step + 1}: a loss or gradient of another rank is not finite"

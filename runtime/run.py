"""What a rank program works with: `step(run)` and the stage's functions take all they need from one `Run`."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from types import ModuleType

import torch
from torch import Tensor

from moec.runtime.collectives import Pending, all_reduce_start, wait
from moec.runtime.communicator import WORLD, Slot, current
from moec.runtime.data import Sample, Source
from moec.runtime.job import Job
from moec.runtime.optimizer import AdamW
from moec.runtime.place import Axes, place_of
from moec.runtime.tape import Tape
from moec.runtime.weights import Values, Weights


class NotFinite(RuntimeError):
    """The loss or a gradient is infinite or no number. All ranks raise it in the same step, before any update."""


class NothingValid(RuntimeError):
    """No target of the whole step is valid, so that its loss is nothing. All ranks raise it, before any update."""


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
        self.step = 0
        self.cursor = 0  # the number of the next step's first sample
        self.result: StepResult | None = None  # of the last step
        self._splits: dict[str, tuple[Axes, ...]] = stage.INPUTS if hasattr(stage, "INPUTS") else {}
        self._source = source
        self._tapes: dict[int, Tape] = {}
        self._inputs: dict[int, dict[str, Tensor]] = {}
        self._losses: list[Tensor] = []
        self._valid: Pending | None = None
        self._divisor: Tensor | None = None
        self._families = {family.reduce: family for family in self.weights.families}

    def tape(self, i: int) -> Tape:
        """The tape of micro-batch i of this step."""
        if i not in self._tapes:
            self._tapes[i] = Tape()
        return self._tapes[i]

    def inputs(self, i: int) -> dict[str, Tensor]:
        """This rank's slices of the inputs of micro-batch i, those that the stage reads."""
        if i not in self._inputs:
            if self.job.loss == "mean":
                self._inputs.clear()  # those of a sum are read twice: first they are counted
            self._inputs[i] = self._read(i)
        return self._inputs[i]

    def count_valid(self, counts: Sequence[Tensor], same: str = "") -> None:
        """Begin a step whose loss is a sum: how many targets of all micro-batches on all ranks it is over.

        `counts` are this rank's, one integer a micro-batch, and none on a stage that has no loss; if the group `same`
        has the same ones, they count once. The sum arrives while the first micro-batches are under way.
        """
        assert self.job.loss == "sum", f"the loss of {self.job.name} is a mean, which is divided already"
        mine = counts if not same or current().coordinate(same) == 0 else ()
        total = torch.zeros((), dtype=torch.int64, device=self.device)
        for count in mine:
            total += count
        self._valid = all_reduce_start(total, WORLD, "valid")

    @property
    def divisor(self) -> Tensor:
        """What the sum of the losses of all is divided by, float64: the step's valid targets, or its micro-batches."""
        if self._divisor is None:
            if self.job.loss == "mean":
                self._divisor = torch.tensor(float(self.job.accumulate), dtype=torch.float64, device=self.device)
            else:
                assert self._valid is not None, "the loss is a sum, but the step did not begin with run.count_valid"
                self._divisor = wait(self._valid).double()
        return self._divisor

    @property
    def seed(self) -> Tensor:
        """The gradient of the loss of one micro-batch."""
        precise = self.job.training.dtype is torch.float64
        return self.divisor.clamp(min=1).reciprocal().to(torch.float64 if precise else torch.float32)

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
        self.result = self._total()
        self.optimizer.step(self.result.gradient_norm)
        self.weights.zero_gradients()
        self._tapes.clear()
        self._losses.clear()
        self._inputs.clear()
        self._valid = self._divisor = None
        self.step += 1
        self.cursor += self.job.batch

    def _read(self, i: int) -> dict[str, Tensor]:
        """Read only the samples that are this rank's, each once; the first dim is the batch."""
        size = self.job.batch // self.job.accumulate
        first = self.cursor + i * size
        samples: dict[int, Sample] = {}
        inputs = {}
        for name, (batch, *dims) in self._splits.items():
            part = self.place.part(size, batch)
            key = name.partition("@")[0]  # what comes after it tells apart two ways to split one input
            for n in range(part.start, part.stop):
                if n not in samples:
                    samples[n] = self._source.sample(first + n)
            whole = torch.stack([samples[n][key] for n in range(part.start, part.stop)])
            where = [self.place.part(n, axes) for n, axes in zip(whole.shape[1:], dims, strict=True)]
            x = whole[(slice(None), *where)].contiguous()
            inputs[name] = x.to(self.device, self.job.training.dtype if x.is_floating_point() else None)
        return inputs

    def _total(self) -> StepResult:
        """Loss and norm of all ranks together; all of it is finite on every rank."""
        square = self.optimizer.squared_norm().to(self.device)
        loss = torch.stack(self._losses).double().sum() if self._losses else torch.zeros_like(square)
        total = torch.stack((loss, square))
        if current().size(WORLD) > 1:
            current().all_reduce_in_place(total, WORLD, "loss and norm")
        loss, square, divisor = torch.stack((*total.unbind(), self.divisor)).tolist()
        if divisor == 0:
            raise NothingValid(f"step {self.step + 1}: no target of any micro-batch is valid")
        if not isfinite(loss) or not isfinite(square):
            raise NotFinite(self._first_not_finite())
        return StepResult(loss / divisor, sqrt(square))

    def _first_not_finite(self) -> str:
        """What this rank holds of it; a rank that holds nothing of it says so."""
        if not all(bool(x.isfinite()) for x in self._losses):
            return f"step {self.step + 1}: the loss is not finite"
        for name, shard in self.weights.shards.items():
            if shard.value.grad is not None and not bool(shard.value.grad.isfinite().all()):
                return f"step {self.step + 1}: the gradient of {name} is not finite"
        return f"step {self.step + 1}: a loss or gradient of another rank is not finite"

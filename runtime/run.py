"""What a rank program works with: `step(run)` and the stage's functions take all they need from one `Run`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from types import ModuleType
from typing import TypeVar

import torch
from torch import Tensor

from moec.runtime.collectives import Pending, all_reduce_start, wait
from moec.runtime.communicator import WORLD, Slot, current
from moec.runtime.data import Ahead, MicroBatches, Source
from moec.runtime.expert_load import ExpertLoad
from moec.runtime.job import Job
from moec.runtime.optimizer import AdamW
from moec.runtime.place import Axes, place_of
from moec.runtime.step_sum import Summand
from moec.runtime.tape import Tape
from moec.runtime.weights import Values, Weights

T = TypeVar("T")

_MOST_SKIPPED = 10  # steps in a row


class NotFinite(RuntimeError):
    """The loss or a gradient is infinite or no number. All ranks raise it in the same step, before any update."""


class NothingValid(RuntimeError):
    """No target of the whole step is valid, so that its loss is nothing. All ranks raise it, before any update."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step came to, the same on all ranks."""

    loss: float
    gradient_norm: float  # before they are clipped
    rate: float  # of learning
    skipped: str = ""  # why the weights stay as they are, as far as this rank knows


class Run:
    """One rank's run of its program."""

    def __init__(
        self, rank: ModuleType, job: Job, initial: Values, source: Source, device: torch.device | str = "cpu"
    ) -> None:
        stage: ModuleType = rank.stage
        self.job = job
        self.place = place_of(rank)
        self.device = torch.device(device)
        self.weights = Weights.create(stage, rank, job.training.dtype, self.device)
        self.optimizer = AdamW(self.weights, job.training)
        self.optimizer.initialise(initial)
        self.tables: dict[str, Tensor] = {}
        if hasattr(stage, "make_tables"):
            self.tables = {name: table.to(self.device) for name, table in stage.make_tables().items()}
        self.step = 0
        self.cursor = 0  # the number of the next step's first sample
        self.result: StepResult | None = None  # of the last step
        self.expert_load = ExpertLoad(job.routers, self.place.stage, self.device)
        self.summands: list[Summand] = [self.expert_load]  # the same on all ranks
        self._skipped = 0  # steps in a row
        self.counted_once_in: str | None = None  # the group whose ranks count the same valid targets, once a step has
        self.waited_for_data = 0.0  # seconds of the last step
        self.asked_to_stop = False  # this rank, from outside
        self.stopping = False  # any rank was, before the last step ended: all know it in the same step
        splits: dict[str, tuple[Axes, ...]] = stage.INPUTS if hasattr(stage, "INPUTS") else {}
        self.micro_batches = MicroBatches.of(source, job, self.place, splits)
        self._ahead: Ahead | None = None
        self._waiting = 0.0
        self._tapes: dict[int, Tape] = {}
        self._new_tape: Callable[[int], Tape] | None = None  # while a step is replayed
        self._inputs: dict[int, dict[str, Tensor]] = {}
        self._losses: list[Tensor] = []
        self._valid: Pending | None = None
        self._divisor: Tensor | None = None
        self._families = {family.reduce: family for family in self.weights.families}

    def tape(self, i: int) -> Tape:
        """The tape of micro-batch i of this step."""
        if i not in self._tapes:
            self._tapes[i] = self._new_tape(i) if self._new_tape else Tape()
        return self._tapes[i]

    def read_ahead(self) -> Ahead:
        """From here on a thread reads the micro-batches of a step while the one before it runs."""
        self._ahead = Ahead(self.micro_batches, self.job.accumulate, pin=self.device.type == "cuda")
        return self._ahead

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
        self.counted_once_in = same
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
        if self._new_tape:
            return
        self.waited_for_data, self._waiting = self._waiting, 0.0
        self.result = self._total()
        if not self.result.skipped:
            self.optimizer.step(self.result.gradient_norm, self.result.rate)
        self._clear()
        self.step += 1
        self.cursor += self.job.batch

    def replay(self, program: Callable[["Run"], None], tape: Callable[[int], Tape], look: Callable[[], T]) -> T:
        """Run the step that was not updated once more, up to its update, with other tapes, and look at what it leaves.

        Nothing of it is left then.
        """
        done = self.result is not None and bool(self.result.skipped)
        self.step, self.cursor = self.step - done, self.cursor - done * self.job.batch
        self._clear()
        ahead, self._ahead, self._new_tape = self._ahead, None, tape
        try:
            program(self)
            return look()
        finally:
            self._clear()
            self.expert_load.forget()
            self._waiting = 0.0
            self._ahead, self._new_tape = ahead, None
            self.step, self.cursor = self.step + done, self.cursor + done * self.job.batch

    @property
    def loss_is_spoilt(self) -> bool:
        """Of a micro-batch that this rank counts, since the step began."""
        return not all(bool(x.isfinite()) for x in self._losses)

    def _clear(self) -> None:
        """As a step begins."""
        self.weights.zero_gradients()
        self._tapes.clear()
        self._losses.clear()
        self._inputs.clear()
        self._valid = self._divisor = None

    def _read(self, i: int) -> dict[str, Tensor]:
        start = time.perf_counter()
        inputs = (self._ahead or self.micro_batches).read(self.cursor + i * self.micro_batches.size)
        self._waiting += time.perf_counter() - start
        return {name: x.to(self.device, non_blocking=True) for name, x in inputs.items()}

    def _total(self) -> StepResult:
        """Loss and norm of all ranks together; all of it is finite on every rank, unless the step is skipped."""
        square = self.optimizer.squared_norm().to(self.device)
        loss = torch.stack(self._losses).double().sum() if self._losses else torch.zeros_like(square)
        asked = torch.full_like(square, self.asked_to_stop)
        spoilt = torch.stack((loss, square)).isfinite().logical_not().sum().to(square)
        more = [summand.mine() for summand in self.summands]
        total = torch.cat((torch.stack((loss, square, spoilt, asked)), *more))
        if current().size(WORLD) > 1:
            current().all_reduce_in_place(total, WORLD, "loss and norm")
        first, *told = total.split([4, *(len(x) for x in more)])
        loss, square, spoilt, asked, divisor = torch.stack((*first.unbind(), self.divisor)).tolist()
        self.stopping = asked > 0
        if divisor == 0:
            raise NothingValid(f"step {self.step + 1}: no target of any micro-batch is valid")
        for summand, x in zip(self.summands, told, strict=True):
            summand.told(x)
        spoilt = bool(spoilt) or not isfinite(loss) or not isfinite(square)
        self._skipped = self._skipped + 1 if spoilt else 0
        rate = self.job.training.rate.of(self.step + 1)
        return StepResult(loss / divisor, sqrt(square), rate, self._why_skipped() if spoilt else "")

    def _why_skipped(self) -> str:
        """Raises NotFinite where the plan has the run stop, or where it makes no headway."""
        why = self._first_not_finite()
        if self.job.training.not_finite == "stop":
            raise NotFinite(why)
        if self._skipped > _MOST_SKIPPED:
            raise NotFinite(f"{why}; the {_MOST_SKIPPED} steps before it were skipped, too")
        return why

    def _first_not_finite(self) -> str:
        """What this rank holds of it; a rank that holds nothing of it says so."""
        if self.loss_is_spoilt:
            return f"step {self.step + 1}: the loss is not finite"
        for name, shard in self.weights.shards.items():
            if shard.value.grad is not None and not bool(shard.value.grad.isfinite().all()):
                return f"step {self.step + 1}: the gradient of {name} is not finite"
        return f"step {self.step + 1}: a loss or gradient of another rank is not finite"

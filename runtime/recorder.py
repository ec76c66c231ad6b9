"""Records a run, step by step: times and sums them on every rank, and says them on rank 0."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

from moec.runtime import routing
from moec.runtime.log import Log, check_log, open_log
from moec.runtime.metrics import Metrics
from moec.runtime.progress import Progress
from moec.runtime.run import Run
from moec.runtime.step_costs import StepCosts, Talking
from moec.runtime.tensorboard import Board, check_tensorboard


@dataclass(frozen=True, slots=True)
class Recording:
    """Where the metrics of a run go."""

    steps: int  # at which it ends
    log: str | None = None
    tensorboard: str | None = None
    experts_every: int = 1  # steps between two records of what the experts got

    @staticmethod
    def of(options: argparse.Namespace, rank: int) -> "Recording":
        """As the command line says; only rank 0 writes."""
        if rank:
            return Recording(options.steps)
        return Recording(options.steps, options.log, options.tensorboard, options.experts_every)

    def check(self, goes_on: bool) -> None:
        """Raise DataFault where it cannot go there; nothing is written yet. A run that `goes_on` has been there."""
        if self.log:
            check_log(self.log, goes_on)
        if self.tensorboard:
            check_tensorboard()


class Recorder:
    """Of one rank. `begin` and `end` stand around every step."""

    def __init__(self, recording: Recording, run: Run, ranks: Talking) -> None:
        self._recording = recording
        self._run = run
        self._costs = StepCosts(ranks, run, run.place, run.job.world_size, run.device)
        run.summands.append(self._costs)
        routing.watch(run.expert_load)
        self._progress = Progress(recording.steps, done=run.step) if run.place.rank == 0 else None
        self._log: Log | None = open_log(recording.log, run.step) if recording.log else None
        self._board = Board(recording.tensorboard, run.step) if recording.tensorboard else None
        self._start = 0.0

    def begin(self) -> None:
        self._run.expert_load.forget()
        self._costs.begin()
        self._start = time.perf_counter()

    def end(self) -> None:
        seconds = time.perf_counter() - self._start
        self._costs.end()
        result = self._run.result
        assert result is not None, "the program's step does not end in run.update()"
        if self._progress is None:
            return
        metrics = self._metrics(seconds)
        self._progress.step(metrics)
        if self._log:
            self._log.write(metrics.record)
        if self._board:
            self._board.write(metrics)

    def held_out(self, loss: float) -> None:
        """The loss of what is held out of training, after the last step."""
        step = self._run.step
        if self._log:
            self._log.write({"step": step, "held_out_loss": loss})
        if self._board:
            self._board.write_held_out(step, loss)
        if self._progress:
            self._progress.note(f"step {step}  held-out loss {loss:.4f}")

    def finish(self, where: Sequence[str] = ()) -> None:
        """The summary on rank 0, with `where` the last checkpoint is."""
        if self._log:
            self._log.close()
            where = [f"metrics: {self._log.path}: moec plot {self._log.path}", *where]
        if self._board:
            self._board.close()
        if self._progress:
            self._progress.finish(where)

    def _metrics(self, seconds: float) -> Metrics:
        run, costs, result = self._run, self._costs, self._run.result
        assert result is not None
        load = run.expert_load if run.step % self._recording.experts_every == 0 else None
        return Metrics(
            step=run.step,
            loss=result.loss,
            lr=result.rate,
            grad_norm=result.gradient_norm,
            tokens=run.job.tokens,
            seconds=seconds,
            compute=max(0.0, seconds - costs.communication - costs.data),
            communication=costs.communication,
            data=costs.data,
            memory=round(costs.memory),
            skipped=bool(result.skipped),
            experts=load.counts() if load else {},
            dropped=load.dropped() if load else {},
        )

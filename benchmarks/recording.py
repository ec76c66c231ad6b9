"""Time what recording takes of a training step, with all metrics on, beside the same step without, in one job.

    torchrun --nproc-per-node 8 benchmarks/recording.py pp=2 ep=2 tp=2

The two are the same program with the same samples, and take turns; the first lines are as those of step.py. Whether it
is one step in a hundred cannot be seen by that where other work shares the machine, so the last line says what was
measured within the steps: the processor time of the calls that record, of the step's, both summed over the ranks. By
default the model and the mesh are those of examples/tiny_moe.plan.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import TypeVar

import torch
import torch.distributed as dist
from emitted import Emitted
from rivals.workload import Batch, Sizes
from step import WARM, arguments, enter, report, source_of, take_turns
from torch import Tensor

from moec.runtime import routing
from moec.runtime.data import Source
from moec.runtime.distributed import Distributed
from moec.runtime.recorder import Recorder, Recording
from moec.runtime.step_sum import Summand

Told = TypeVar("Told")


class Plain(Emitted):
    """Adds up loss and norm, and nothing else."""

    def setup(self, rank: int, world: int, mesh: Mapping[str, int], sizes: Sizes) -> None:
        super().setup(rank, world, mesh, sizes)
        self.run.summands.clear()


class Recorded(Emitted):
    """With a log, and a line on a terminal that is not there."""

    def __init__(self, folder: Path, source: Source, ranks: Distributed) -> None:
        super().__init__(folder, source)
        self._ranks = ranks
        self.spent: list[float] = []  # seconds of the processor by step
        self._now = 0.0

    def setup(self, rank: int, world: int, mesh: Mapping[str, int], sizes: Sizes) -> None:
        super().setup(rank, world, mesh, sizes)
        recording = Recording(1 << 30, log=str(Path(mkdtemp()) / "metrics.jsonl") if rank == 0 else None)
        with redirect_stdout(StringIO()):
            self._recorder = Recorder(recording, self.run, self._ranks)
        self.run.summands[:] = [ClockedSum(self, each) for each in self.run.summands]
        routing.watch(None)

    def step(self, batch: Batch) -> float:
        self._now = 0.0
        routing.watch(ClockedWatch(self, self.run.expert_load))
        self.clock(self._recorder.begin)
        loss = super().step(batch)
        self.clock(self._recorder.end)
        routing.watch(None)
        self.spent.append(self._now)
        return loss

    def clock(self, call: Callable[[], Told]) -> Told:
        start = time.thread_time()
        result = call()
        self._now += time.thread_time() - start
        return result


@dataclass(frozen=True, slots=True)
class ClockedSum:
    """Satisfies `Summand`."""

    owner: Recorded
    inner: Summand

    def mine(self) -> Tensor:
        return self.owner.clock(self.inner.mine)

    def told(self, total: Tensor) -> None:
        self.owner.clock(lambda: self.inner.told(total))


@dataclass(frozen=True, slots=True)
class ClockedWatch:
    """Satisfies `Watcher`."""

    owner: Recorded
    inner: routing.Watcher

    def chosen(self, expert: Tensor) -> None:
        self.owner.clock(lambda: self.inner.chosen(expert))

    def kept(self, kept: Tensor) -> None:
        self.owner.clock(lambda: self.inner.kept(kept))


def main() -> None:
    options = arguments(__doc__, several=True, more=as_tiny_moe)
    rank, world, mesh, sizes, folder, ranks = enter(options)
    source = source_of(sizes)
    recorded = Recorded(folder, source, ranks)
    contestants = {"plain": Plain(folder, source), "recorded": recorded}
    for contestant in contestants.values():
        contestant.setup(rank, world, mesh, sizes)
    seconds = take_turns(contestants, source, options.steps)
    spent = torch.tensor(recorded.spent[WARM:], dtype=torch.float64)
    dist.all_reduce(spent)
    if rank == 0:
        report(" ".join(options.mesh), sizes, seconds)
        busy = seconds["recorded"].processor
        shares = [mine / step for mine, step in zip(spent.tolist(), busy, strict=True)]
        print(
            f"recording takes {median(spent.tolist()) / world * 1e6:.0f} us of a rank's processor time in a step of "
            f"{median(busy) / world * 1e3:.1f} ms: {median(shares):.2%}"
        )
    ranks.close()


def as_tiny_moe(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(seq=64, experts=4, capacity="1.25", steps=60)


if __name__ == "__main__":
    main()

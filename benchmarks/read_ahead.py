"""Time a training step that reads its samples itself beside one whose samples a thread reads ahead, in one job.

    torchrun --nproc-per-node 8 benchmarks/read_ahead.py pp=2 ep=2 tp=2

The two are the same program with the same samples, and take turns; what is printed is as that of step.py, and then how
long a step waits for its samples, on the rank that waits longest. By default the model and the mesh are those of
examples/tiny_moe.plan, and the samples come from a text; --work gives each sample that much work to make, in
milliseconds, as a dataset of images would.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from emitted import Emitted
from rivals.workload import Batch
from step import arguments, enter, report, source_of, take_turns

from moec.runtime.data import Sample, Source


@dataclass(frozen=True, slots=True)
class Slowly:
    """The samples of a source, each of which takes a while, in which other threads can run."""

    source: Source
    seconds: float

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def sample(self, index: int) -> Sample:
        time.sleep(self.seconds)
        return self.source.sample(index)


class Reading(Emitted):
    """Notes how long each step waits for its samples."""

    def __init__(self, folder: Path, source: Source) -> None:
        super().__init__(folder, source)
        self.waited: list[float] = []

    def step(self, batch: Batch) -> float:
        loss = super().step(batch)
        self.waited.append(self.run.waited_for_data)
        return loss


def main() -> None:
    options = arguments(__doc__, several=True, more=add_work)
    rank, world, mesh, sizes, folder, ranks = enter(options)
    source: Source = source_of(sizes)
    if options.work:
        source = Slowly(source, options.work / 1e3)
    contestants = {"ahead": Reading(folder, source), "itself": Reading(folder, source)}
    for contestant in contestants.values():
        contestant.setup(rank, world, mesh, sizes)
    ahead = contestants["ahead"].run.read_ahead()
    seconds = take_turns(contestants, source, options.steps)
    waited = {name: longest(contestant.waited) for name, contestant in contestants.items()}
    if rank == 0:
        report(" ".join(options.mesh), sizes, seconds)
        print("a step waits for samples: " + ", ".join(f"{name} {x * 1e3:.2f} ms" for name, x in waited.items()))
    ahead.close()
    ranks.close()


def longest(waited: list[float]) -> float:
    """The median of the steps, of the rank whose median is the largest."""
    mine = torch.tensor(median(waited), dtype=torch.float64)
    dist.all_reduce(mine, dist.ReduceOp.MAX)
    return mine.item()


def add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", type=float, default=0.0, help="milliseconds that a sample takes to make")
    parser.set_defaults(seq=64, experts=4, capacity="1.25", steps=60)


if __name__ == "__main__":
    main()

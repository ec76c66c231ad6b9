"""Time a training step of the emitted program beside the same step by hand and from PyTorch's parts, in one job.

    torchrun --nproc-per-node 8 benchmarks/step.py pp=2 ep=2 tp=2 --hidden 64

The three take turns, each with its own weights and the same samples; a ratio is of neighbours in time, and what is
printed is the median of the ratios with their quartiles, so that other work on the machine disturbs it little. A second
line has the same of the processor time that all ranks take together, which it disturbs least: where there are more
ranks than cores, that is what a step waits for.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from statistics import median, quantiles

import torch
import torch.distributed as dist
from emitted import Emitted, join
from rivals.by_hand import ByHand
from rivals.parts import Parts
from rivals.workload import Batch, Rival, Sizes

from moec.runtime.allocator import keep_freed_memory
from moec.runtime.data import Shuffled, Source, read_text
from moec.runtime.distributed import Distributed
from moec.runtime.job import Input

WARM = 3  # steps that are not counted
APART = 1e-6  # losses, relative


@dataclass(slots=True)
class Seconds:
    """What the counted steps of one contestant took."""

    wall: list[float] = field(default_factory=list)  # of the slowest rank
    processor: list[float] = field(default_factory=list)  # of all ranks together


def main() -> None:
    options = arguments(__doc__, several=True)
    rank, world, mesh, sizes, folder, ranks = enter(options)
    source = source_of(sizes)
    rivals: dict[str, Rival] = {"moec": Emitted(folder, source), "by hand": ByHand(), "parts": Parts()}
    rivals = {name: rival for name, rival in rivals.items() if name.split()[-1] not in options.without}
    for rival in rivals.values():
        rival.setup(rank, world, mesh, sizes)
    seconds = take_turns(rivals, source, options.steps)
    if rank == 0:
        report(" ".join(options.mesh), sizes, seconds)
    ranks.close()


def enter(options: argparse.Namespace) -> tuple[int, int, dict[str, int], Sizes, Path, Distributed]:
    """Join the job as this process's rank: rank and world, the mesh, sizes, folder of the programs, and the ranks."""
    mesh, sizes = mesh_of(options), sizes_of(options)
    prepare()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return rank, world, mesh, sizes, *join(rank, world, mesh, sizes)


def prepare() -> None:
    """As a rank of the emitted program does; the others profit as well."""
    torch.set_num_threads(1)
    keep_freed_memory()


def mesh_of(options: argparse.Namespace) -> dict[str, int]:
    return {axis: int(size) for axis, size in (pair.split("=") for pair in options.mesh)}


def source_of(sizes: Sizes) -> Shuffled:
    inputs = tuple([Input(kind, kind, (sizes.seq,), sizes.vocab) for kind in ("tokens", "labels")])
    return read_text([Path(argparse.__file__)], inputs, 0)


def take_turns(rivals: Mapping[str, Rival], source: Source, steps: int) -> dict[str, Seconds]:
    """Each step of each, in an order that changes with the steps; the first few are not counted."""
    seconds = {name: Seconds() for name in rivals}
    order = list(rivals)
    for step in range(WARM + steps):
        losses = []
        for name in order:
            dist.barrier()
            start, processor = time.perf_counter(), time.process_time()
            losses.append(rivals[name].step(Batch(source, step)))
            wall = torch.tensor(time.perf_counter() - start, dtype=torch.float64)
            busy = torch.tensor(time.process_time() - processor, dtype=torch.float64)
            dist.all_reduce(wall, dist.ReduceOp.MAX)
            dist.all_reduce(busy)
            if step >= WARM:
                seconds[name].wall.append(wall.item())
                seconds[name].processor.append(busy.item())
        order = [*order[1:], order[0]]
        apart = max(losses) - min(losses)
        assert apart <= APART * max(losses), f"step {step + 1}: losses {losses}"
    return seconds


def report(what: str, sizes: Sizes, seconds: Mapping[str, Seconds]) -> None:
    title = f"{what} hidden {sizes.hidden}"
    print(f"{title:24} {'wall':9} {compared({name: taken.wall for name, taken in seconds.items()})}")
    print(f"{'':24} {'processor':9} {compared({name: x.processor for name, x in seconds.items()})}", flush=True)


def compared(seconds: Mapping[str, list[float]]) -> str:
    """Medians, and the ratios of the others to the first."""
    mine, *others = seconds
    line = "  ".join(f"{name} {median(taken) * 1e3:6.1f} ms" for name, taken in seconds.items())
    for name in others:
        ratios = [other / own for other, own in zip(seconds[name], seconds[mine], strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        line += f"   {name}/{mine} {middle:.2f} ({low:.2f} to {high:.2f})"
    return line


def sizes_of(options: argparse.Namespace) -> Sizes:
    return Sizes(
        layers=options.layers,
        hidden=options.hidden,
        heads=options.heads,
        vocab=256,
        seq=options.seq,
        experts=options.experts,
        expert_ffn=4 * options.hidden,
        capacity=Fraction(options.capacity),
        batch=options.batch,
        accumulate=options.accumulate,
        lr=options.lr,
        clip=options.clip,
    )


def arguments(
    description: str | None,
    several: bool = False,
    more: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> argparse.Namespace:
    """Those of the model, and with several ranks those of the mesh and of the rivals; `more` adds others."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if several:
        parser.add_argument("mesh", nargs="+", help="such as pp=2 ep=2 tp=2; the last axis varies fastest")
        parser.add_argument("--without", nargs="*", default=(), choices=("hand", "parts"), help="rivals to leave out")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--seq", type=int, default=32)
    parser.add_argument("--experts", type=int, default=8)
    parser.add_argument("--capacity", default="1.1")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--accumulate", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--clip", type=float)
    parser.add_argument("--steps", type=int, default=30)
    more(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()

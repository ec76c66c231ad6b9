"""Train the rivals and the plain module side by side, and print how far their losses are from each other.

    torchrun --nproc-per-node 4 benchmarks/rivals_agree.py pp=2 tp=2 --time 20

With --time also the seconds of a step, rivals taking turns; the plain module is one process and is not timed.
"""

import argparse
import time
from collections.abc import Mapping
from statistics import median

import torch
import torch.distributed as dist
from plain import Plain
from rivals.by_hand import ByHand
from rivals.parts import Parts
from rivals.workload import Batch, Rival
from step import mesh_of, sizes_of, source_of

from moec.runtime.data import Source


def main() -> None:
    options = arguments()
    mesh, sizes = mesh_of(options), sizes_of(options)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    source = source_of(sizes)
    rivals: dict[str, Rival] = {"by hand": ByHand(), "parts": Parts()}
    if options.steps:
        rivals["plain"] = Plain()
    for rival in rivals.values():
        rival.setup(rank, world, mesh, sizes)
    for step in range(options.steps):
        losses = {name: rival.step(Batch(source, step)) for name, rival in rivals.items()}
        if rank == 0:
            worst = max(abs(loss - losses["plain"]) for loss in losses.values())
            print("  ".join(f"{name} {loss:.7f}" for name, loss in losses.items()), f"  apart {worst:.1e}", flush=True)
    rivals.pop("plain", None)
    compare(rivals, source, options.time, rank)
    dist.destroy_process_group()


def compare(rivals: Mapping[str, Rival], source: Source, steps: int, rank: int) -> None:
    """Seconds of a step, and the median of the ratios of neighbours."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for step in range(steps):
        for name, rival in rivals.items():
            dist.barrier()
            start = time.perf_counter()
            rival.step(Batch(source, step))
            dist.barrier()
            seconds[name].append(time.perf_counter() - start)
    if rank == 0 and steps:
        first, *_ = rivals
        for name, taken in seconds.items():
            ratio = median(a / b for a, b in zip(taken[2:], seconds[first][2:], strict=True))
            print(f"{name}: {median(taken[2:]) * 1e3:.1f} ms a step, {ratio:.2f} of {first}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mesh", nargs="*", help="such as pp=2 ep=2 tp=2; the last axis varies fastest")
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
    parser.add_argument("--steps", type=int, default=5, help="compared with the plain module")
    parser.add_argument("--time", type=int, default=0, help="timed")
    return parser.parse_args()


if __name__ == "__main__":
    main()

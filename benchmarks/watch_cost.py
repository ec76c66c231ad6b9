"""What watching costs: the processor time of the threads that watch, beside that of all of the steps, in one job.

    torchrun --nproc-per-node 8 benchmarks/watch_cost.py pp=2 ep=2 tp=2

Every rank watches as it does in training. Times are of the processor, by thread, so that other work on the machine does
not count; they leave out what the job's store does in torchrun. A call of other ranks takes a little longer for being
counted and timed: that is measured by itself, on a call that does nothing.
"""

import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
from emitted import Emitted
from rivals.workload import Batch
from step import arguments, enter, source_of

from moec.runtime.distributed import Distributed, find_store
from moec.runtime.watch import Watch

WARM = 3
CALLS = 20_000


def main() -> None:
    options = arguments(__doc__, several=True)
    rank, world, mesh, sizes, folder, ranks = enter(options)
    source = source_of(sizes)
    job = Emitted(folder, source)
    job.setup(rank, world, mesh, sizes)
    watch = Watch(watch_store(rank, world), rank, world, folder, 300.0)
    watch.start(str)
    watch.follow(job.run, ranks, WARM + options.steps)
    for step in range(WARM):
        job.step(Batch(source, step))
    calls = ranks.calls
    began, watched, all_of_it = time.perf_counter(), seconds_of("moec-watch"), time.process_time()
    for step in range(WARM, WARM + options.steps):
        job.step(Batch(source, step))
    took = torch.tensor(
        [seconds_of("moec-watch") - watched, time.process_time() - all_of_it, time.perf_counter() - began],
        dtype=torch.float64,
    )
    calls = (ranks.calls - calls) / options.steps
    dist.all_reduce(took)
    if rank == 0:
        report(took / world, calls, options.steps)
    watch.close()
    ranks.close()


def watch_store(rank: int, world: int) -> dist.Store:
    """A connection of its own."""
    from emitted import TIMEOUT

    return find_store(rank, world, TIMEOUT)


def report(took: torch.Tensor, calls: float, steps: int) -> None:
    watched, all_of_it, wall = took.tolist()
    counting = calls * seconds_to_count()
    step = all_of_it / steps
    print(f"a step takes {1e3 * step:.1f} ms of a rank's processor time, {1e3 * wall / steps:.1f} ms by the clock")
    print(f"its watch    {1e3 * watched / steps:.3f} ms, {100 * watched / all_of_it:.2f} % of it", end="")
    print(f", and {100 * watched / wall:.2f} % of a core by the clock")
    print(
        f"its calls    {1e3 * counting:.3f} ms for counting and timing {calls:.0f}, {100 * counting / step:.2f} % of it"
    )


def seconds_of(name: str) -> float:
    """Of the processor, that a thread of this process has had."""
    (thread,) = [thread for thread in threading.enumerate() if thread.name == name]
    return int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text().split()[0]) / 1e9


class Nothing:
    """A call that is done when it is begun."""

    def __init__(self) -> None:
        self.value = torch.zeros(1)

    def wait(self) -> torch.Tensor:
        return self.value


def seconds_to_count() -> float:
    """What a call takes longer for being counted and timed."""
    from moec.runtime.distributed import _Timed

    ranks, nothing = Distributed(0, {}, torch.device("cpu")), Nothing()
    start = time.perf_counter()
    for _ in range(CALLS):
        nothing.wait()
    plain = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(CALLS):
        ranks.calls += 1
        _Timed(nothing, ranks).wait()
    return (time.perf_counter() - start - plain) / CALLS


if __name__ == "__main__":
    main()

"""One process of those that measure together: times everything, and writes down what it found."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import repeat
from pathlib import Path
from time import perf_counter, process_time

import torch
from torch.distributed import FileStore  # pyright: ignore[reportPrivateImportUsage]

from moec.compiler.cost.calibrate.attention import attention
from moec.compiler.cost.calibrate.clock import Clock, CpuClock, CudaClock
from moec.compiler.cost.calibrate.layers import layer_kernels, layers, smallest_layer
from moec.compiler.cost.calibrate.messages import groups_of, messages
from moec.compiler.cost.calibrate.order import PRECISIONS, Order, Precision
from moec.compiler.cost.calibrate.processor import cores, processor
from moec.compiler.cost.calibrate.products import Work, grouped, linears
from moec.compiler.cost.calibrate.timings import Measured, Timing, quartile, typical
from moec.compiler.cost.kernels import Kernel
from moec.runtime.allocator import keep_freed_memory
from moec.runtime.distributed import connect

_TIMEOUT = timedelta(seconds=300)


def measure_as(rank: int, order: Order, folder: Path) -> Measured:
    """What this process measures as one of the ranks, which meet in `folder`. Rank 0 says for all what layers do."""
    device, groups = _device(order, rank), groups_of(rank, order.ranks)
    kernels = layer_kernels(order.device, order.main, order.every) if rank == 0 else repeat(())
    ranks = connect(FileStore(str(folder / "store"), order.ranks), rank, order.ranks, groups, device, _TIMEOUT)
    clock, passes = _clock(order), range(order.passes)
    started, busy = perf_counter(), process_time()
    timings = typical([list(_timings(order, clock, kernels)) for _ in passes])
    share = (process_time() - busy) / (perf_counter() - started) * _sharing(order) if order.device == "cpu" else 1.0
    dispatch = quartile([_dispatch(order, clock) for _ in passes]) if isinstance(clock, CudaClock) else None
    said = typical([list(messages(ranks, groups, order.ranks, device, order.every)) for _ in passes])
    ranks.close()
    return Measured(processor(order), timings, said, dispatch, share)


def _device(order: Order, rank: int) -> torch.device:
    """As a rank program sets it up."""
    torch.manual_seed(rank)
    if order.device == "cuda":
        torch.cuda.set_device(rank)
        return torch.device("cuda", rank)
    torch.set_num_threads(1)
    keep_freed_memory()
    return torch.device("cpu")


def _clock(order: Order) -> Clock:
    if order.device == "cuda":
        return CudaClock(order.window)
    return CpuClock(_sharing(order), order.window / _sharing(order))  # the more ranks, the more times a median is of


def _sharing(order: Order) -> float:
    """Ranks that have a core between them."""
    return max(1.0, order.ranks / cores())


def _timings(order: Order, clock: Clock, kernels: Iterable[tuple[Kernel, ...]]) -> Iterator[Timing]:
    device, main, every = order.device, order.main, order.every
    yield from _timed(clock, main, zip(kernels, layers(device, main, every), strict=False))
    yield from _timed(clock, main, attention(device, main, every))
    for precision in PRECISIONS:
        coarse = every if precision == main else 2 * every
        yield from _timed(clock, precision, linears(device, precision, coarse))
        yield from _timed(clock, precision, grouped(device, precision, coarse))


def _timed(clock: Clock, precision: Precision, works: Iterable[Work]) -> Iterator[Timing]:
    for kernels, call in works:
        yield Timing(precision, kernels, clock.seconds(call))


def _dispatch(order: Order, clock: CudaClock) -> float:
    kernels, call = smallest_layer(order.device, order.main)
    call()
    return clock.host_seconds(call) / len(kernels)

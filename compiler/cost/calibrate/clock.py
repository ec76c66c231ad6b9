"""How long a call takes, from a window of calls that is long against the clock's own steps."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from time import perf_counter, thread_time
from typing import Protocol, TypeAlias

import torch

Call: TypeAlias = Callable[[], object]


class Clock(Protocol):
    def seconds(self, call: Call) -> float: ...


@dataclass(frozen=True, slots=True)
class CpuClock:
    """Counts the processor's time, which other work on the machine disturbs least. Satisfies `Clock`.

    Where there are more ranks than cores, each waits for the others: `sharing` ranks have a core between them.
    """

    sharing: float
    window: float

    def seconds(self, call: Call) -> float:
        call()
        one = self._run(call, 1)
        count = ceil(self.window / max(one, 1e-7))
        return (self._run(call, count) / count if count > 1 else one) * self.sharing

    def _run(self, call: Call, count: int) -> float:
        started = thread_time()
        for _ in range(count):
            call()
        return thread_time() - started


_ROWS, _LEAST = 8192, 0.6e-3  # a product of so many rows, columns and steps, and seconds that it takes any GPU at least
_MOST_CALLS = 5  # more of a layer would not fit in the queue before a GPU


@dataclass(frozen=True, slots=True)
class CudaClock:
    """Counts the device's time: products keep it busy until the host has handed over all calls. Satisfies `Clock`."""

    window: float

    def seconds(self, call: Call) -> float:
        call()
        host = self.host_seconds(call)
        count = min(_MOST_CALLS, ceil(self.window / self._run(call, 1, host)))
        return self._run(call, count, host) / count

    def host_seconds(self, call: Call) -> float:
        """What the host takes to hand it over."""
        torch.cuda.synchronize()
        started = perf_counter()
        for _ in range(_MOST_CALLS):
            call()
        taken = perf_counter() - started
        torch.cuda.synchronize()
        return taken / _MOST_CALLS

    def _run(self, call: Call, count: int, host: float) -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        x = torch.zeros(_ROWS, _ROWS, dtype=torch.bfloat16, device="cuda")
        for _ in range(ceil(2 * count * host / _LEAST)):
            torch.mm(x, x)
        start.record()
        for _ in range(count):
            call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3

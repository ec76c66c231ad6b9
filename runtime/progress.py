"""What a run says to the person who watches it: a line as it goes, and a summary at the end."""

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from moec.runtime.metrics import Metrics

_LAST = 0.1  # how much of the expected time of a step the last one tells
_SELDOM = 0.01  # of the time so far that passes between two lines, but for a terminal; at least a second


class Progress:
    """On a terminal one line that changes; else a line now and then, ever fewer as the run grows longer."""

    def __init__(self, steps: int, out: TextIO | None = None, done: int = 0) -> None:
        """Of a run to step `steps` that goes on after step `done`."""
        self._steps, self._done = steps, done
        self._out = out or sys.stdout
        self._live = self._out.isatty()
        self._open = False  # is a line begun that the next one takes the place of?
        self._began = self._told = time.monotonic()
        self._first: Metrics | None = None
        self._last: Metrics | None = None
        self._times = [0.0] * 4  # seconds, compute, communication, data, of all steps but the first, which is slower
        self._tokens = 0
        self._skipped = 0
        self._expected = 0.0  # seconds of a step

    def step(self, metrics: Metrics) -> None:
        """Count a step, and say so if it is time to."""
        if self._first is None:
            self._first, self._expected = metrics, metrics.seconds
        else:
            times = (metrics.seconds, metrics.compute, metrics.communication, metrics.data)
            self._times = [total + x for total, x in zip(self._times, times, strict=True)]
            self._tokens += metrics.tokens
            self._expected += _LAST * (metrics.seconds - self._expected)
        self._last = metrics
        self._skipped += metrics.skipped
        now = time.monotonic()
        seldom = max(1.0, _SELDOM * (now - self._began))
        if self._live or metrics is self._first or metrics.step == self._steps or now - self._told >= seldom:
            self._told = now
            self._say(metrics)

    def note(self, text: str) -> None:
        """A line of its own, that stays."""
        self._end_line()
        print(text, file=self._out, flush=True)

    def finish(self, where: Sequence[str]) -> None:
        """The summary, and `where` to find what the run has left."""
        self._end_line()
        for line in [*self._summary(), *where]:
            print(line, file=self._out)
        self._out.flush()

    def _say(self, metrics: Metrics) -> None:
        line = (
            f"step {metrics.step}/{self._steps}  loss {metrics.loss:.4f}  lr {metrics.lr:.2e}"
            f"  {metrics.tokens_per_second:,.0f} tokens/s"
        )
        left = self._steps - metrics.step
        if left > 0:
            line += f"  {duration(left * self._expected)} left"
        self._open = self._live
        print(f"\r{line}\033[K" if self._live else line, end="" if self._live else "\n", file=self._out, flush=True)

    def _end_line(self) -> None:
        if self._open:
            print(file=self._out)
        self._open = False

    def _summary(self) -> list[str]:
        if self._first is None or self._last is None:
            return [f"nothing to do: step {self._done} is done, and --steps is {self._steps}"]
        steps = self._last.step - self._first.step + 1
        took = duration(time.monotonic() - self._began)
        lines = [f"{_count(steps, 'step')} in {took}: loss {self._first.loss:.4f} -> {self._last.loss:.4f}"]
        seconds, *parts = self._times
        if seconds:
            lines[0] += f", {self._tokens / seconds:,.0f} tokens/s after the first step"
            said = zip(("computes", "talks", "waits for data"), parts, strict=True)
            shares = ", ".join(f"{what} {x / seconds:.1%}" for what, x in said)
            lines.append(f"a step takes {seconds / (steps - 1):.3g} s, in which a rank {shares}")
        if self._skipped:
            lines.append(f"{_count(self._skipped, 'step')} skipped, for loss or gradients were not finite")
        return lines


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds) // 60
    if minutes < 60:
        return f"{minutes} min {round(seconds) % 60:02} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' if n != 1 else ''}"

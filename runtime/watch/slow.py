"""Which of the ranks that do the same work is much slower at it than the others, over some time."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from moec.runtime.watch import board
from moec.runtime.watch.own import Own
from moec.runtime.watch.pulse import Pulse

_EVERY = 5.0  # seconds between two looks
_FACTOR = 2.0  # of the time that others take
_STEPS = 3  # that a look must span
_LOOKS = 3  # in a row
_LEAST = 0.01  # seconds a step; what takes less is noise


@dataclass(frozen=True, slots=True)
class Slow:
    rank: int
    factor: float
    seconds: float  # of its own work in a step
    usual: float


class SlowRanks:
    """The first rank of each stage compares how fast its ranks are, and warns."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self._pace = Pace()
        self._looked = 0.0

    def compare(self) -> None:
        ranks = tuple(self._own.alike)
        if len(ranks) < 2 or ranks[0] != self._own.rank or not self._own.run:
            return
        if time.monotonic() - self._looked < _EVERY:
            return
        self._looked = time.monotonic()
        pulses = board.pulses_of(self._own.store, ranks)
        slow = self._pace.look(pulses)
        if slow is not None:
            what = (
                f"is slow: {1e3 * slow.seconds:.0f} ms of its own work a step, {slow.factor:.1f} times that of others"
            )
            phase = f", most often seen in {pulses[slow.rank].mostly}" if pulses[slow.rank].mostly else ""
            print(f"warning: {self._own.said(slow.rank, what + phase, '')}", file=sys.stderr, flush=True)


@dataclass(slots=True)
class Pace:
    """Looks at the pulses of ranks that run one stage. Names a rank once."""

    looks: dict[int, Pulse] = field(default_factory=dict)
    named: set[int] = field(default_factory=set)
    suspect: int = -1
    times: int = 0

    def look(self, pulses: Mapping[int, Pulse]) -> Slow | None:
        """The rank that this and the looks before it find slow."""
        work = {rank: own_work(self.looks[rank], pulse) for rank, pulse in pulses.items() if rank in self.looks}
        known = {rank: seconds for rank, seconds in work.items() if seconds is not None}
        if len(known) < len(pulses) and self.looks:
            return None  # too few steps: look again from where the last look was
        self.looks = dict(pulses)
        found = slowest(known)
        if found is None:
            self.suspect, self.times = -1, 0
            return None
        self.times = self.times + 1 if found.rank == self.suspect else 1
        self.suspect = found.rank
        if self.times < _LOOKS or found.rank in self.named:
            return None
        self.named.add(found.rank)
        return found


def own_work(earlier: Pulse, later: Pulse) -> float | None:
    """Seconds of a step in which the rank did not wait for others; None over too few steps to say."""
    steps = later.step - earlier.step
    if steps < _STEPS:
        return None
    return max(0.0, (later.now - earlier.now) - (later.waited - earlier.waited)) / steps


def slowest(work: Mapping[int, float]) -> Slow | None:
    """The one that takes longest, if that is much longer than the others take."""
    if len(work) < 2:
        return None
    rank = max(work, key=lambda rank: work[rank])
    usual = median([seconds for other, seconds in work.items() if other != rank])
    if work[rank] < _FACTOR * usual or work[rank] - usual < _LEAST:
        return None
    return Slow(rank, work[rank] / max(usual, 1e-9), work[rank], usual)

"""Each rank listens to the one before it, so that all are heard, however many there are."""

import sys

from moec.runtime.watch import board
from moec.runtime.watch.judge import Finding
from moec.runtime.watch.own import Own

_WARN = 10.0  # seconds without a pulse


class Listener:
    """Of one rank, to one other."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self._other = (own.rank - 1) % own.world
        self._number = 0
        self._silence = 0.0

    def listen(self) -> Finding | None:
        """Called once an interval. Silence counts by these, not by a clock that runs while this process does not."""
        own = self._own
        pulse = board.pulse_of(own.store, self._other) if own.world > 1 else None
        if pulse is None or pulse.number != self._number:
            self._number, self._silence = pulse.number if pulse else 0, 0.0
            return None
        before, self._silence = self._silence, self._silence + own.interval
        if self._silence < _WARN or board.has_left(own.store, self._other):
            return None
        if self._silence >= own.timeout:
            return Finding(self._other, "has stopped: its process does not run", True)
        if before < _WARN:
            line = own.said(self._other, f"has not been heard of for {self._silence:.0f} s")
            print(f"warning: {line}", file=sys.stderr, flush=True)
        return None

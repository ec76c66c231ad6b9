"""Looks at all ranks where one has waited too long for another, has lost one, or comes to no end by itself."""

import time

from moec.runtime.watch import board
from moec.runtime.watch.judge import Finding, judge
from moec.runtime.watch.own import Own
from moec.runtime.watch.pulse import Pulse

_APART = 3.0  # seconds between two looks at all pulses, in which one that runs has several


class Inquiry:
    """Of one rank. Of those that wait at the same time, one looks for all."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self._begun = 0.0
        self._first_look: dict[int, Pulse] | None = None

    def go_on(self, pulse: Pulse) -> Finding | None:
        """Called once an interval, with this rank's own pulse."""
        if self._first_look is None:
            if self._is_due(pulse):
                self._begun, self._first_look = time.monotonic(), self._look()
            return None
        if time.monotonic() - self._begun < _APART:
            return None
        earlier, self._first_look = self._first_look, None
        finding = judge(self._own.world, earlier, self._look(), self._own.timeout)
        if not self._own.missing:
            return finding
        return finding if finding is not None and finding.stopped else Finding(self._own.rank, self._own.missing)

    def _is_due(self, pulse: Pulse) -> bool:
        if self._own.missing:
            return True
        times = int((pulse.still if pulse.waits else self._idle(pulse)) // self._own.timeout)
        return times > 0 and self._own.store.add(f"watch/overdue/{pulse.step}/{times}", 1) == 1

    def _idle(self, pulse: Pulse) -> float:
        """Before the first step a rank may read and make for long."""
        return pulse.idle if self._own.run else 0.0

    def _look(self) -> dict[int, Pulse]:
        return board.pulses_of(self._own.store, range(self._own.world))

"""Runs the steps of a rank, and sees to it that none goes on from wrong numbers."""

import sys
from types import ModuleType

from moec.runtime.copies import Copies
from moec.runtime.ending import stop
from moec.runtime.not_finite import end_with_origin, name_origin
from moec.runtime.run import NotFinite, Run
from moec.runtime.store import Store
from moec.runtime.watch import Watch

_FOR_OTHERS = 3.0  # seconds in which they may come to the end of the step


class Guard:
    """Of one rank. What it finds it names, and ends the job, but for a step that the plan has skipped."""

    def __init__(
        self, run: Run, rank_module: ModuleType, store: Store, watch: Watch, compare_every: int | None
    ) -> None:
        self._run, self._program, self._store, self._watch = run, rank_module, store, watch
        self._copies = Copies(run, store) if compare_every else None
        self._compare_every = compare_every or 1
        self._skipped = 0

    def step(self) -> None:
        try:
            self._program.step(self._run)
        except NotFinite as fault:
            stop("", end_with_origin(self._run, self._program, _own(str(fault)), self._store, self._watch))
        except Exception as error:
            error.add_note(f"in step {self._run.step + 1}")
            raise

    def look(self) -> None:
        """At what the step has left, once its time is taken."""
        self._look_at_skipped()
        if self._copies and self._run.step % self._compare_every == 0:
            self._compare(self._copies)

    def _look_at_skipped(self) -> None:
        """Name what a skipped step was skipped for: of the first, the second, the fourth, ..."""
        run = self._run
        if run.result is None or not run.result.skipped:
            return
        self._skipped += 1
        if self._skipped & (self._skipped - 1):
            return
        named = name_origin(run, self._program, _own(run.result.skipped), run.step, self._store, self._watch)
        if named:
            print(f"warning: {named.line}: the step was skipped", file=sys.stderr, flush=True)

    def _compare(self, copies: Copies) -> None:
        differing = copies.compare()
        if differing is None:
            return
        copies.wait(_FOR_OTHERS)
        difference = copies.difference(differing)
        odd, *more = difference.odd
        also = f", as on ranks {', '.join(map(str, more))}" if more else ""
        others = ", ".join(map(str, difference.others))
        names, rest = ", ".join(difference.weights[:6]), len(difference.weights) - 6
        names += f" and {rest} more" if rest > 0 else ""
        what = f"has other weights than ranks {others}{also}, though all did the same ({names})"
        line = self._watch.said(odd, what, "", self._run.step)
        stop("", self._watch.end(self._watch.verdict_of(line, odd)))


def _own(why: str) -> str:
    """What this rank had that is not finite, without the step; "" if it was another that had it."""
    return "" if "of another rank" in why else why.partition(": ")[2]

"""The thread that watches over this rank's main thread, over others, and for a verdict, which ends the process."""

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator

from moec.runtime.watch import board
from moec.runtime.watch.inquiry import Inquiry
from moec.runtime.watch.judge import Finding
from moec.runtime.watch.listener import Listener
from moec.runtime.watch.neighbourhood import Neighbourhood
from moec.runtime.watch.own import Own
from moec.runtime.watch.signals import CALLS_TO_END, Mailbox
from moec.runtime.watch.slow import SlowRanks
from moec.runtime.watch.verdict import INTERRUPTED, TERMINATED, Verdict, post, posted, tell
from moec.runtime.words import error_text, ranks_text

_MISSED = 5  # looks at the store that fail in a row: it is gone


class Watcher:
    """Runs until the process ends, or the main thread is done. `ending` is held by whoever ends it, for ever."""

    def __init__(self, own: Own, mailbox: Mailbox, ending: threading.Lock) -> None:
        self._own, self._mailbox, self._ending = own, mailbox, ending
        self._neighbourhood = Neighbourhood(own)
        self._listener = Listener(own)
        self._inquiry = Inquiry(own)
        self._slow = SlowRanks(own)
        self._missed = 0

    def run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # a rank that no one watches could wait for ever
            self._failed(error)

    def _watch(self) -> None:
        ready: set[int] = set()
        while not self._own.done:
            try:
                self._wake(ready)
                self._look()
                self._missed = 0
            except RuntimeError as lost:
                self._lost(lost)
            ready = self._sleep()

    def _look(self) -> None:
        """Whatever happens, once an interval."""
        self._obey(posted(self._own.store))
        if self._neighbourhood.orphaned:
            self._cut_off("has lost torchrun, which is gone from its machine")
        for finding in self._findings():
            self._accuse(finding)
        if not self._neighbourhood.absent:
            self._own.all_met.set()
        self._slow.compare()

    def _findings(self) -> Iterator[Finding]:
        pulse = self._own.pulse()
        board.post_pulse(self._own.store, self._own.rank, pulse)
        found = (self._neighbourhood.meet(), self._listener.listen(), self._inquiry.go_on(pulse))
        yield from (finding for finding in found if finding is not None)

    def _sleep(self) -> set[int]:
        """Until the next look, or until a signal comes or a neighbour ends."""
        poll = select.poll()
        for descriptor in (self._mailbox.descriptor, *self._neighbourhood.descriptors):
            poll.register(descriptor, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll(1000 * self._own.interval)}

    def _wake(self, ready: set[int]) -> None:
        """Neighbours that have ended before a signal: torchrun sends one to all when one has."""
        for finding in self._neighbourhood.ended(ready):
            self._obey(posted(self._own.store))
            self._accuse(finding)
        if self._mailbox.descriptor in ready:
            self._called(self._mailbox.arrived() & set(CALLS_TO_END))

    def _called(self, numbers: frozenset[int]) -> None:
        if not numbers:
            return
        self._obey(posted(self._own.store))
        if numbers == {signal.SIGTERM} and self._own.run:
            self._own.run.asked_to_stop = True
            return
        when = f"in step {self._own.step}" if self._own.step else "before the first step"
        if self._neighbourhood.absent:  # torchrun calls all to end because of one that has failed, too
            when += f", to which {ranks_text(self._neighbourhood.absent)} had not come"
        status = TERMINATED if signal.SIGTERM in numbers else INTERRUPTED
        line = f"ended by {signal.Signals(min(numbers)).name} {when}"
        self._obey(post(self._own.store, self._own.verdict(line, status)))

    def _accuse(self, finding: Finding) -> None:
        line, kills = self._own.said(finding.rank, finding.what), finding.rank if finding.stopped else None
        self._obey(post(self._own.store, self._own.verdict(line, culprit=finding.rank, kills=kills)))

    def _lost(self, why: RuntimeError) -> None:
        self._missed += 1
        if self._missed == _MISSED:
            self._cut_off(f"cannot reach the job's store: {str(why).partition(chr(10))[0]}")

    def _failed(self, error: Exception) -> None:
        """End the job: not to see another's fault is one of its own."""
        what = f"cannot watch over the others any more ({error_text(error)})"
        try:
            verdict = post(self._own.store, self._own.verdict(self._own.said_alone(what), culprit=self._own.rank))
        except Exception:
            self._cut_off(f"{what}, nor tell them")
        else:
            self._obey(verdict)

    def _obey(self, verdict: Verdict | None) -> None:
        """End this process, unless the main thread does so at this moment."""
        if verdict is None:
            return
        self._begin_to_end()
        try:
            tell(self._own.store, verdict, self._own.rank)
            self._neighbourhood.kill(verdict.kills)
            sys.stdout.flush()
        finally:
            os._exit(verdict.status)

    def _cut_off(self, what: str) -> None:
        """End this process alone, where no one can be asked or told."""
        self._begin_to_end()
        verdict = self._own.verdict(self._own.said_alone(what))
        try:
            print(verdict.line, file=sys.stderr, flush=True)
        finally:
            os._exit(verdict.status)

    def _begin_to_end(self) -> None:
        if not self._ending.acquire(blocking=False):
            raise SystemExit  # of this thread

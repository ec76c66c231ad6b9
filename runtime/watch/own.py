"""What a rank knows of itself: how it goes, and what is to be said of it and of others."""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from socket import gethostname
from typing import Protocol

from moec.runtime.data.micro_batches import MicroBatches
from moec.runtime.store import Store
from moec.runtime.watch import board
from moec.runtime.watch.helper import helper_of
from moec.runtime.watch.plan_lines import PlanLines
from moec.runtime.watch.pulse import Card, Pulse, machine
from moec.runtime.watch.sight import look
from moec.runtime.watch.verdict import FAILED, Verdict, this_machine


class Running(Protocol):
    """A run: the steps that it has done, and whether it is to end after the one that is under way."""

    step: int
    asked_to_stop: bool

    @property
    def micro_batches(self) -> MicroBatches: ...


class Talking(Protocol):
    """What counts this rank's calls of others, and the seconds in which it was blocked in them."""

    @property
    def calls(self) -> int: ...

    @property
    def waited(self) -> float: ...


@dataclass(slots=True)
class _Before:
    """What the last look at the main thread saw."""

    called: tuple[int, bool] = (0, False)  # calls of others, and whether it waits in one
    since: float = field(default_factory=time.monotonic)  # when that last changed
    all: tuple[object, ...] = ()
    idle_since: float = field(default_factory=time.monotonic)  # when any of all last changed

    def see(self, now: float, called: tuple[int, bool], *more: object) -> None:
        if called != self.called:
            self.called, self.since = called, now
        if (called, *more) != self.all:
            self.all, self.idle_since = (called, *more), now


class Own:
    """This rank, for its watch."""

    def __init__(self, store: Store, rank: int, world: int, folder: Path, timeout: float, main: int) -> None:
        self.store, self.rank, self.world, self.timeout = store, rank, world, timeout
        self.interval = max(0.5, world / 1000)
        """Seconds between two pulses; the store of thousands of ranks has thousands of them to take."""
        self.card = Card(gethostname(), os.getpid(), machine(), "")
        self.run: Running | None = None
        self.talking: Talking | None = None
        self.steps = sys.maxsize
        """At which the run ends."""
        self.alike: Iterable[int] = ()
        """The ranks of its stage."""
        self.remedy: Callable[[], str] = lambda: ""
        """What to do about the end of the job, in words."""
        self.done = False
        """The main thread is, and its watch ends."""
        self.all_met = threading.Event()
        """Every other rank of this machine has been seen, so that what ends it will be."""
        self.missing = ""
        """What an error said that another rank's end makes."""
        self._folder, self._main = folder, main
        self._lines = PlanLines.read(folder)
        self._before = _Before()
        self._number = 0
        self._phases: Counter[str] = Counter()

    @property
    def step(self) -> int:
        """That is under way, or the last; 0 before the first."""
        return min(self.run.step + 1, max(1, self.steps)) if self.run else 0

    def pulse(self) -> Pulse:
        now, sight = time.monotonic(), look(self._folder, self._main)
        calls = self.talking.calls if self.talking else 0
        waited = self.talking.waited if self.talking else 0.0
        helper, samples = helper_of(sight.phase, self._main), self.run.micro_batches.pace.samples if self.run else 0
        before = self._before
        before.see(now, (calls, sight.waits), sight, self.step, samples, helper.moved)
        self._phases[sight.phase] += not sight.waits
        self._number += 1
        return Pulse(
            number=self._number,
            step=self.step,
            phase=sight.phase,
            at=sight.at,
            waits=sight.waits,
            calls=calls,
            still=now - before.since,
            idle=now - before.idle_since,
            helper=helper.at,
            for_others=helper.for_others,
            now=now,
            waited=waited,
            mostly=self._phases.most_common(1)[0][0],
        )

    def said(self, rank: int, what: str, at: str | None = None, step: int = 0) -> str:
        """`rank 3 on HOST WHAT: step 17, stage 1 (layers.2 to head), in FILE:LINE CODE [PLAN:LINE]`.

        Where no instruction is given, it is the one in which the rank was last seen.
        """
        card, pulse = board.card_of(self.store, rank), board.pulse_of(self.store, rank)
        step = step or max(self.step, pulse.step if pulse else 0)
        if at is None:
            fresh = pulse and bool(pulse.step) == bool(step)  # one of before the steps says nothing of a step
            at = (pulse.at or pulse.phase) if pulse and fresh else ""
            return self._line(rank, card, what, step, at, "last seen in")
        return self._line(rank, card, what, step, at, "in")

    def said_alone(self, what: str) -> str:
        """Of this rank, where no one can be asked."""
        return self._line(self.rank, self.card, what, self.step, "", "")

    def verdict(self, line: str, status: int = FAILED, culprit: int | None = None, kills: int | None = None) -> Verdict:
        """Of a line and what to do about it."""
        remedy = self.remedy()
        return Verdict(f"{line}: {remedy}" if remedy else line, self.rank, this_machine(), status, culprit, kills)

    def _line(self, rank: int, card: Card | None, what: str, step: int, at: str, seen: str) -> str:
        words = [f"step {step}" if step else "before the first step", card.stage if card else ""]
        words += [f"{seen} {at}{self._lines.of(at)}"] if at else []
        host = f" on {card.host}" if card else ""
        return f"rank {rank}{host} {what}: {', '.join(filter(None, words))}"

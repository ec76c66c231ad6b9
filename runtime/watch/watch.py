"""What the main thread of a rank tells its watch, and asks of it."""

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from moec.runtime.attempt import end_attempt
from moec.runtime.store import Store
from moec.runtime.watch import board
from moec.runtime.watch.own import Own, Running, Talking
from moec.runtime.watch.pulse import Card, stage_text
from moec.runtime.watch.signals import Mailbox
from moec.runtime.watch.thread import Watcher
from moec.runtime.watch.verdict import (
    FAILED,
    TERMINATED,
    USAGE,
    Verdict,
    is_first,
    note_for_parent,
    post,
    tell,
    this_machine,
)


class Watch:
    """Watches from its start on: over this rank's main thread and over other ranks, in a thread of its own."""

    def __init__(self, store: Store, rank: int, world: int, folder: Path, timeout: float) -> None:
        """`store` is this watch's alone: a call of another thread may block for long."""
        self._own = Own(store, rank, world, folder, timeout, threading.get_ident())
        self._ending = threading.Lock()
        self._mailbox: Mailbox | None = None
        self._thread: threading.Thread | None = None

    def start(self, remedy: Callable[[], str]) -> None:
        """`remedy` says what a user does about the end of the job."""
        self._own.remedy = remedy
        board.post_card(self._own.store, self._own.rank, self._own.card)
        self._mailbox = Mailbox()
        watcher = Watcher(self._own, self._mailbox, self._ending)
        self._thread = threading.Thread(target=watcher.run, name="moec-watch", daemon=True)
        self._thread.start()

    def knows(self, rank_module: ModuleType, alike: Iterable[int]) -> None:
        """The rank's program is read; these ranks run the same stage."""
        card = self._own.card
        self._own.card = Card(card.host, card.pid, card.machine, stage_text(rank_module))
        self._own.alike = alike
        board.post_card(self._own.store, self._own.rank, self._own.card)

    def meet(self) -> None:
        """All ranks have come. A process that ends before it was met might be gone without a trace of what it died."""
        if self._mailbox:
            self._mailbox.ring()
            self._own.all_met.wait(timeout=10 * self._own.interval)

    def follow(self, run: Running, talking: Talking, steps: int) -> None:
        """The steps begin, of so many."""
        self._own.talking, self._own.run, self._own.steps = talking, run, steps

    @property
    def in_a_step(self) -> bool:
        return self._own.run is not None

    def leave(self) -> None:
        """This rank is done, or has said itself why it ends: what happens to its process is no fault."""
        self._ending.acquire()
        end_attempt(self._own.store)
        board.post_left(self._own.store, self._own.rank)

    def close(self) -> None:
        """The run is done. A thread that talks to the store while the interpreter ends would abort the process."""
        self.leave()
        self._own.done = True
        if self._mailbox and self._thread:
            self._mailbox.ring()
            self._thread.join(timeout=5.0)
            self._mailbox.close()

    def refuse(self, line: str) -> bool:
        """As `leave`, of what keeps all ranks from starting. Is this the rank of its machine that says so?"""
        self.leave()
        note_for_parent(Verdict(line, self._own.rank, this_machine(), USAGE))
        return is_first(self._own.store)

    def fail(self, what: str, at: str, before: str, status: int = FAILED) -> int:
        """This rank cannot go on, and all end. Gives the status to end with."""
        rank = self._own.rank
        return self.end(self._own.verdict(self._own.said(rank, what, at), status, culprit=rank), before)

    def end(self, verdict: Verdict, before: str = "") -> int:
        """Unless another rank was first: then what it found is why. Gives the status to end with."""
        self._ending.acquire()
        first = post(self._own.store, verdict)
        tell(self._own.store, first, self._own.rank, before)
        board.post_left(self._own.store, self._own.rank)
        return first.status

    def wait(self) -> NoReturn:
        """For the verdict that another rank comes to, upon which the watch ends this process."""
        while True:
            time.sleep(60)

    def missed_others(self, what: str) -> NoReturn:
        """After an error that another rank's end makes: the watch finds out whose."""
        self._own.missing = what
        self.wait()

    def said(self, rank: int, what: str, at: str | None = None, step: int = 0) -> str:
        """As `Own.said`."""
        return self._own.said(rank, what, at, step)

    def verdict_of(self, line: str, culprit: int) -> Verdict:
        """Of a job that fails, because of a rank."""
        return self._own.verdict(line, culprit=culprit)

    def terminated(self, line: str) -> Verdict:
        """Of a job that ends as it was asked to."""
        return self._own.verdict(line, TERMINATED)

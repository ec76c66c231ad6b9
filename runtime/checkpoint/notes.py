"""What the ranks of a job leave for each other in its store about one save, and how long they wait for it."""

import time
from collections.abc import Callable
from threading import Thread

from moec.checkpoint.manifest import Progress
from moec.runtime.store import Store

THREAD = "moec-save"
"""The name of the thread that writes, which leaves them."""

SAVED = "saved"
_LOOK, _SELDOM = 0.02, 0.25  # seconds between looks at the store: at first, and at last
_BEAT = 1.0  # seconds between two signs of life
_LATER = 2.0  # seconds after which others say of a rank what it has not said itself


class NotSaved(Exception):
    """Why a step could not be saved; the message is for the user."""


class Notes:
    """Those of one save, as one rank sees them. No wait is longer than `timeout` for a rank that does not get on."""

    def __init__(self, board: Store, step: int, rank: int, host: str, timeout: float) -> None:
        self.step = step
        self.abandoned = False  # the rank has gone on without the thread that writes
        self.moves = 0  # how often this rank has got on, if only with a call that the disk took long for
        self._board = board
        self._key = f"moec/save/{step}"
        self._rank = rank
        self._host = host
        self._timeout = timeout
        self._beats = 0
        self._moved = time.monotonic()
        self._told = self._moved - _BEAT

    @property
    def still(self) -> float:
        """Seconds since this rank last got on."""
        return time.monotonic() - self._moved

    def beat(self) -> None:
        """This rank gets on."""
        self.moves += 1
        self._show_life()

    def _show_life(self) -> None:
        self._moved = time.monotonic()
        if self._moved - self._told >= _BEAT:
            self._told = self._moved
            self._beats += 1
            self._board.set(self._beat_of(self._rank), f"{self._beats} {self._host}")

    def leave(self, name: str, text: str) -> None:
        self._board.set(f"{self._key}/{name}", text)

    def wait(self, name: str, rank: int) -> str:
        """For a note that another rank leaves. Raises NotSaved if the save fails meanwhile, or that rank hangs."""
        seen, since, looked, pause = "", time.monotonic(), 0.0, _LOOK
        while not self._board.check([f"{self._key}/{name}"]):
            fault = self.outcome()
            if self.abandoned or fault not in ("", SAVED):
                raise NotSaved(fault)
            now = time.monotonic()
            if now - looked >= _BEAT:
                looked, beat = now, self._read(self._beat_of(rank))
                seen, since = beat, since if beat == seen else now
            if now - since > self._timeout + _LATER:
                raise NotSaved(self.said(self._hangs(rank, seen)))
            self._get_on_waiting()
            time.sleep(pause)
            pause = min(1.2 * pause, _SELDOM)
        return self._read(f"{self._key}/{name}")

    def outcome(self) -> str:
        """SAVED, or why not, or "" as long as neither is known."""
        return self._read(f"{self._key}/outcome")

    def conclude(self, outcome: str) -> str:
        """The first outcome of all counts; which that is."""
        return self._board.compare_set(f"{self._key}/outcome", "", outcome).decode()

    def is_first_to_tell(self) -> bool:
        return self._board.add(f"{self._key}/told", 1) == 1

    def said(self, why: str) -> str:
        return f"step {self.step} was not saved: {why}"

    def forget(self, world: int) -> None:
        """Once no one reads them any more."""
        for name in (
            "folder",
            "outcome",
            "told",
            *[f"{what}{rank}" for rank in range(world) for what in ("", "beat/")],
        ):
            self._board.delete_key(f"{self._key}/{name}")

    def _get_on_waiting(self) -> None:
        """Only rank 0 is waited for while it waits itself."""
        if self._rank == 0:
            self._show_life()
        self._moved = time.monotonic()

    def _hangs(self, rank: int, beat: str) -> str:
        host = beat.partition(" ")[2]
        if not host:
            return f"rank {rank} has not begun to save it for {self._timeout:.0f} s"
        return f"rank {rank} on {host} has not got on with it for {self._timeout:.0f} s: does the disk still answer?"

    def _beat_of(self, rank: int) -> str:
        return f"{self._key}/beat/{rank}"

    def _read(self, key: str) -> str:
        return self._board.get(key).decode() if self._board.check([key]) else ""


class SavingThread(Thread):
    """Writes one save, of which the watch may ask how it gets on."""

    def __init__(self, notes: Notes, write: Callable[[Progress, Notes], None], progress: Progress) -> None:
        super().__init__(target=write, args=(progress, notes), name=THREAD, daemon=True)
        self.notes = notes

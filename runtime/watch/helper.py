"""What the thread does that the main thread waits for: one reads data, one writes a checkpoint."""

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from moec.runtime.checkpoint import notes
from moec.runtime.data import ahead
from moec.runtime.installed import is_installed
from moec.runtime.watch.sight import instruction

_THREADS = {"data": ahead.THREAD, "saving": notes.THREAD}
"""By the phase of the main thread."""

_OURS = f"{Path(__file__).parents[2]}/"
"""Where moec lies, which may be among the packages."""


@dataclass(frozen=True, slots=True)
class Helper:
    """Of the main thread, in the phases that have one."""

    at: str = ""  # `pictures.py:12 image = open(path).read()`
    for_others: bool = False  # it waits for the part of other ranks
    moved: int = 0  # bytes that it has read and written, and calls of the system that have come back


def helper_of(phase: str, main: int) -> Helper:
    """That of a phase of the main thread; the main thread itself where it does without."""
    if phase not in _THREADS:
        return Helper()
    thread = next((each for each in threading.enumerate() if each.name == _THREADS[phase]), None)
    frames = sys._current_frames()
    busy = [] if thread is None else list(_frames(frames.get(thread.ident or 0)))
    if thread is None or len(busy) < 2:  # it waits for something to do, in its first function
        return Helper(_at(list(_frames(frames.get(main)))))
    return Helper(_at(busy), any(_asks(frame) for frame in busy), _moved(thread))


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Moec's and the user's, the innermost first."""
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_OURS) or not is_installed(name):
            yield frame
        frame = frame.f_back


def _at(frames: list[FrameType]) -> str:
    return instruction(frames[0].f_code.co_filename, frames[0].f_lineno) if frames else ""


def _asks(frame: FrameType) -> bool:
    """Does a rank that saves wait there for what others say of their part?"""
    return frame.f_code is notes.Notes.wait.__code__


def _moved(thread: threading.Thread) -> int:
    """Bytes as Linux counts them, where it does, and what a thread that saves says itself."""
    moves = thread.notes.moves if isinstance(thread, notes.SavingThread) else 0
    try:
        with open(f"/proc/self/task/{thread.native_id}/io", encoding="ascii") as file:
            return moves + sum(int(line.split()[1]) for line in file if line.startswith(("rchar", "wchar")))
    except OSError:
        return moves

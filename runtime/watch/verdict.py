"""The one line that says why a job ended, and how it reaches all ranks, torchrun and the user."""

import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from moec.runtime.attempt import end_attempt
from moec.runtime.store import Store

FAILED, USAGE, TERMINATED, INTERRUPTED = 1, 2, 75, 130
"""Exit statuses: of a run that failed, of a fault of the user's, of SIGTERM (EX_TEMPFAIL) and of Ctrl-C."""

NOTE = "MOEC_VERDICT"
"""The variable that names a file for the verdict."""

_KEY = "watch/verdict"
_LATER = 2  # seconds


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who or what ended the job."""

    line: str
    by: int  # the rank that found it
    machine: str  # where that is, as torchrun counts machines
    status: int = FAILED
    culprit: int | None = None  # the rank that it names, if it names one
    kills: int | None = None  # a rank that cannot end itself


def post(store: Store, verdict: Verdict) -> Verdict:
    """The verdict of all ranks: this one, unless another came before it."""
    end_attempt(store)
    return _read(store.compare_set(_KEY, "", json.dumps(asdict(verdict))))


def posted(store: Store) -> Verdict | None:
    return _read(store.get(_KEY)) if store.check([_KEY]) else None


def tell(store: Store, verdict: Verdict, rank: int, before: str = "") -> None:
    """Once on each machine, for the user; in each process for torchrun, whose report comes last.

    Whoever found it says what led to it `before`, such as where an error came from.
    """
    note_for_torchrun(verdict.line, rank == verdict.culprit)
    note_for_parent(verdict)
    if verdict.by == rank:
        print(*filter(None, (before, verdict.line)), sep="\n", file=sys.stderr, flush=True)
    elif verdict.machine != this_machine() and is_first(store):
        print(verdict.line, file=sys.stderr, flush=True)


def this_machine() -> str:
    return os.environ.get("GROUP_RANK", "0")


def is_first(store: Store) -> bool:
    """To speak, on this machine; where others can no longer be asked, yes."""
    try:
        return store.add(f"watch/told/{this_machine()}", 1) == 1
    except RuntimeError:
        return True


def note_for_parent(verdict: Verdict) -> None:
    """For a program that has started torchrun, and wants to know why it ended: in the file that it names."""
    path = os.environ.get(NOTE)
    if path:
        _write_at_once(Path(path), json.dumps(asdict(verdict)))


def read_note(path: Path) -> Verdict | None:
    return _read(path.read_bytes()) if path.exists() else None


def note_for_torchrun(line: str, culprit: bool) -> None:
    """In the form in which its report takes it, which names as the root cause whose note is of the earliest second."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    extra = {"py_callstack": line, "timestamp": str(int(time.time()) + (0 if culprit else _LATER))}
    _write_at_once(Path(path), json.dumps({"message": {"message": line, "extraInfo": extra}}))


def _write_at_once(path: Path, text: str) -> None:
    """Nothing where the folder is gone: whoever wanted it has ended."""
    part = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):
        part.write_text(text, encoding="utf-8")
        part.replace(path)


def _read(text: bytes) -> Verdict:
    return Verdict(**json.loads(text))

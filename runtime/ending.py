"""How a process of a job ends when it cannot go on: what it says, of itself or of others, and with which status."""

import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from moec.checkpoint.folders import latest
from moec.runtime.watch import Watch
from moec.runtime.watch.sight import instruction
from moec.runtime.watch.verdict import USAGE
from moec.runtime.words import error_text

_FOR_THE_FIRST = 0.5  # seconds in which one of a machine's ranks says what all know, before torchrun ends it
_TALKING = ("distributed.py", "exchange.py")  # where an error is that another rank's end makes
_LONG = 160  # characters of an error that a line has room for
_OWN = ("allocate", "out of memory")  # words of one that is the rank's own, wherever it is


def remedy(save: str | None) -> str:
    """What a user does about a job that has ended. Never raises."""
    try:
        if save and Path(save).exists() and not Path(save).is_dir():
            return f"and {save} is no folder of checkpoints any more"
        last = latest(Path(save)) if save else None
    except Exception as fault:  # whatever has become of the folder, the end of the job is told
        return f"and no checkpoint is found any more: {error_text(fault)}"
    if last is not None:
        return f"{last} is the last checkpoint, --resume {save} goes on from it"
    return "no step was saved yet" if save else "with --save DIR --every N there are checkpoints to go on from"


def refuse(fault: Exception, watch: Watch) -> NoReturn:
    """End because of a fault of the user's: before the first step all ranks know it, and one of a machine says it."""
    if watch.in_a_step:
        stop("", watch.fail(f"cannot go on: {fault}", "", "", USAGE))
    if watch.refuse(str(fault)):
        print(fault, file=sys.stderr, flush=True)
    time.sleep(_FOR_THE_FIRST)
    stop("", USAGE)


def conclude(error: BaseException, rank: int, folder: Path, watch: Watch) -> NoReturn:
    """End because of an error, and all ranks with it: the first error of all is shown in full, and its echoes not."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [frame for frame in frames if Path(frame.filename).parent == folder]
    at = instruction(mine[-1].filename, mine[-1].lineno or 0) if mine else ""
    if _is_echo(error, frames):
        watch.missed_others(f"misses another rank, which is gone or late ({_gist(error)})")
    whole = f"rank {rank}:\n{''.join(traceback.format_exception(error))}".rstrip()
    stop("", watch.fail(_what(error), at, whole))


def _is_echo(error: BaseException, frames: Sequence[traceback.FrameSummary]) -> bool:
    """Is it no more than that another rank does not answer?"""
    talking = isinstance(error, RuntimeError) and any(Path(frame.filename).name in _TALKING for frame in frames)
    return talking and not any(word in _words(error) for word in _OWN)


def _what(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"ended early, by sys.exit({error.code!r})"
    if isinstance(error, MemoryError) or any(word in _words(error) for word in _OWN):
        return f"ran out of memory ({_gist(error)})"
    return f"raised {_gist(error)}"


def _gist(error: BaseException) -> str:
    """Kind and first line; gloo begins with its own source line."""
    said = next((line for line in _words(error).splitlines() if line.strip()), "")
    said = said.partition("] ")[2] if said.startswith("[") else said
    return f"{type(error).__name__}: {said[:_LONG]}" if said else type(error).__name__


def _words(error: BaseException) -> str:
    """What it says, if it can say it."""
    try:
        return str(error)
    except Exception:
        return ""


def stop_together(message: str) -> NoReturn:
    """For what all ranks know before they can talk: the first of each machine says it."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if not first:
        time.sleep(_FOR_THE_FIRST)
    stop(message if first else "", USAGE)


def stop(message: str, status: int) -> NoReturn:
    """End at once: other threads of the process may hang in a collective that no one will join."""
    if message:
        print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

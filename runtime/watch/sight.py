"""Where the main thread of this process is, seen from another thread: it costs the main thread nothing."""

import linecache
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_RUNTIME = Path(__file__).parents[1]
_TALKING = frozenset(str(_RUNTIME / name) for name in ("distributed.py", "exchange.py"))
_SAVER = str(_RUNTIME / "checkpoint" / "saver.py")
_PHASES = {
    "update": "update",
    "inputs": "data",
    "held_out_loss": "evaluation",
    "connect": "connecting",
    "shake_hands": "meeting",
    "restore_together": "restoring",
}


@dataclass(frozen=True, slots=True)
class Sight:
    """A line of the job's own files, what is done there, and whether it waits for other ranks."""

    at: str  # `stage_1.py:141 ffn_out = all_reduce(ffn_out, "tp")`, or "" outside of the job's files
    phase: str  # forward, backward, update, data, ...
    waits: bool


def look(folder: Path, thread: int) -> Sight:
    """What the thread of this number does at this moment."""
    return sight_of(sys._current_frames().get(thread), folder)


def sight_of(frame: FrameType | None, folder: Path) -> Sight:
    """From the innermost frame outwards: the first of the job's files, the first phase that a function is named for."""
    here = str(folder)
    at, phase, waits = "", "", False
    while frame is not None:
        path, function = frame.f_code.co_filename, frame.f_code.co_name
        if not at and path in _TALKING:
            waits = True
        if path.rpartition("/")[0] == here and function != "<module>":
            at = at or instruction(path, frame.f_lineno)
            phase = phase or _stage_phase(function)
        elif path == _SAVER:
            phase = phase or "saving"
        elif path.startswith(str(_RUNTIME)):
            phase = phase or _PHASES.get(function, "")
        frame = frame.f_back
    return Sight(at, phase, waits)


def instruction(path: str, line: int) -> str:
    """`stage_1.py:141 ffn_out = all_reduce(ffn_out, "tp")`."""
    code = linecache.getline(path, line).strip().partition("  #")[0]
    return f"{Path(path).name}:{line} {code}".rstrip()


def _stage_phase(function: str) -> str:
    return next((phase for phase in ("forward", "backward") if function.endswith(phase)), "")

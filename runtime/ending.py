"""How a process of a job ends when it cannot go on: what it says, of itself or of others, and with which status."""

import os
import sys
import time
import traceback
from pathlib import Path

from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

_TALKING = ("distributed.py", "exchange.py", "links.py")  # where an error is that another rank's end makes


def report(error: Exception, rank: int, folder: Path, store: Store) -> str:
    """The first error of all ranks in full, later ones in a line.

    What is only the echo of another rank's end is a line too, and nothing where a rank has said why.
    """
    frames = traceback.extract_tb(error.__traceback__)
    first = _is_first_to_tell(store)
    if not isinstance(error, RuntimeError) or not any(Path(frame.filename).name in _TALKING for frame in frames):
        whole = f"rank {rank}:\n{''.join(traceback.format_exception(error))}".rstrip()
        return whole if first else f"rank {rank}: {type(error).__name__}: {error}"
    if not first:
        return ""
    calls = [frame for frame in frames if Path(frame.filename).parent == folder]
    place = f"{Path(calls[-1].filename).name}:{calls[-1].lineno}, {calls[-1].line}" if calls else "the start"
    when = "".join(f"{note}, " for note in (error.__notes__ if hasattr(error, "__notes__") else ()))
    said = str(error).splitlines()[0]
    said = said.partition("] ")[2] if said.startswith("[") else said  # gloo begins with its own source line
    return f"rank {rank}: another rank is gone or late, {when}at {place}: {said.partition('. ')[0]}"


def _is_first_to_tell(store: Store) -> bool:
    """Of all ranks; where they can no longer be asked, yes."""
    try:
        return store.add("moec/told", 1) == 1
    except RuntimeError:
        return True


def stop_together(message: str) -> None:
    """For what all ranks know at once: the first of each machine says it, before torchrun ends it because of others."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if not first:
        time.sleep(0.5)
    stop(message if first else "", 2)


def stop(message: str, status: int) -> None:
    """End at once: other threads of the process may hang in a collective that no one will join."""
    if message:
        print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

"""Runs torchrun to its end, and says last what ended the job: torchrun's own report, which is long, comes before it."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory

from moec.runtime.launch import environment
from moec.runtime.watch.verdict import NOTE, read_note


def start_ranks(command: Sequence[str]) -> int:
    """The exit status of the job: what its ranks ended with, if they came to a verdict."""
    with TemporaryDirectory(prefix="moec-") as folder:
        note = Path(folder) / "verdict.json"
        ended = _run(command, {**environment(), NOTE: str(note)})
        verdict = read_note(note)
    if verdict is not None:
        print(verdict.line, file=sys.stderr)
        return verdict.status
    return 1 if ended else 0


def _run(command: Sequence[str], variables: dict[str, str]) -> int:
    """Signals are for the ranks: Ctrl-C reaches torchrun by itself, and SIGTERM is passed on."""
    job = Popen(command, env=variables)
    handlers = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, frame: job.terminate()),
    }
    try:
        return job.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

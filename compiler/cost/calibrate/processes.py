"""Has ranks measure together, as processes on this machine, and combines what they found."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from moec.compiler.cost.calibrate import ranks
from moec.compiler.cost.calibrate.order import Order
from moec.compiler.cost.calibrate.timings import Measured, combine, read_measured
from moec.runtime.launch import environment


class Failed(Exception):
    """A process ended without a result; the message is what the first of them said."""


def measure(order: Order) -> Measured:
    """What one of so many ranks gets when all of them run. Raises Failed; leaves no process behind."""
    with TemporaryDirectory(prefix="moec-calibrate-") as name:
        folder = Path(name)
        (folder / ranks.ORDER).write_text(json.dumps(asdict(order)), encoding="utf-8")
        _run([sys.executable, "-m", ranks.__name__, name])
        return combine([read_measured(ranks.result(folder, rank)) for rank in range(order.ranks)])


def _run(command: list[str]) -> None:
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        try:
            _, said = started.communicate()
        except BaseException:
            os.killpg(started.pid, signal.SIGTERM)  # its ranks are of the same session
            raise
    if started.returncode:
        raise Failed(_first_error(said))


def _first_error(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    own = [line.removeprefix(ranks.ERROR) for line in lines if line.startswith(ranks.ERROR)]
    return own[0] if own else lines[-1] if lines else "they said nothing"

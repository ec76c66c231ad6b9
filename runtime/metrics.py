"""What is recorded of a step, and the file of JSON lines it goes to."""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TextIO

from moec.runtime.data import DataFault


@dataclass(frozen=True, slots=True)
class Metrics:
    """Of one step. Times are in seconds, memory in bytes."""

    step: int  # counted over resumes
    loss: float
    lr: float
    grad_norm: float  # before clipping
    tokens: int
    seconds: float
    compute: float  # what is left of the seconds; the two others are means over the ranks
    communication: float  # blocked in collectives, sends and receives
    data: float  # waited for samples
    memory: int  # of a rank of the fullest stage, at the peak so far
    skipped: bool
    experts: Mapping[str, list[int]]  # how often each was chosen, by router
    dropped: Mapping[str, int]  # choices without room

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def figures(self) -> dict[str, float]:
        """What can be drawn as a curve."""
        return {
            "loss": self.loss,
            "lr": self.lr,
            "grad_norm": self.grad_norm,
            "tokens_per_second": self.tokens_per_second,
            "seconds": self.seconds,
            "compute": self.compute,
            "communication": self.communication,
            "data": self.data,
            "memory": self.memory,
        }

    @property
    def record(self) -> dict[str, object]:
        """As JSON, which has no number that is not finite: such a one is null."""
        figures = {name: x if isfinite(x) else None for name, x in self.figures.items()}
        record: dict[str, object] = {"step": self.step, **figures, "tokens": self.tokens}
        if self.skipped:
            record["skipped"] = True
        if self.experts:
            record |= {"experts": self.experts, "dropped": self.dropped}
        return record


def check_log(path: str) -> None:
    """Raise DataFault if the file cannot be written, or holds something that is no log of metrics."""
    try:
        with open(path, "a+", encoding="utf-8") as file:
            file.seek(0)
            first = file.readline()
    except OSError as fault:
        raise DataFault(f"--log {path} cannot be written: {fault.strerror}") from None
    except UnicodeDecodeError:
        first = "?"
    if first.endswith("\n") and _step(first) is None:
        raise DataFault(f"--log {path} holds something else than metrics: name another file, or move it away")


class Log:
    """A file of JSON lines that is whole after every step: a run that is killed loses none."""

    def __init__(self, path: Path, after_step: int) -> None:
        self.path = path
        if after_step:
            _cut(path, after_step)
        self._file: TextIO | None = open(path, "a" if after_step else "w", encoding="utf-8")  # noqa: SIM115

    def write(self, record: Mapping[str, object]) -> None:
        """Training does not end because its log cannot grow; that is said once."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        except OSError as fault:
            with suppress(OSError):  # it tries to write once more
                self._file.close()
            self._file = None
            print(f"warning: {self.path} is not written any more: {fault.strerror}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def open_log(path: str, after_step: int) -> Log:
    """The log of a run that goes on after a step, 0 for one that begins: lines of later steps are dropped."""
    return Log(Path(path), after_step)


def _cut(path: Path, after_step: int) -> None:
    """A new file takes the old one's place, so that one of the two is there at any time."""
    if not path.exists():
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    with open(path, encoding="utf-8") as old, open(fresh, "w", encoding="utf-8") as new:
        for line in old:
            step = _step(line)
            if step is not None and step <= after_step:
                new.write(line)
    fresh.replace(path)


def _step(line: str) -> int | None:
    """Of a whole line of metrics; the last one of a run that was killed may not be."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return step if isinstance(step, int) and line.endswith("\n") else None

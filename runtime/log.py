"""The file of JSON lines that the metrics of a run go to, which is whole after every step."""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from moec.runtime.data import DataFault

_FIGURES = ("loss", "held_out_loss")  # each line has one of them


def check_log(path: str, goes_on: bool) -> None:
    """Raise DataFault if the file cannot be written, or holds what must stay; nothing of it changes.

    That is all but the metrics of this run, of one that `goes_on`: it adds to them.
    """
    try:
        if Path(path).is_fifo():  # whose other end might never be opened
            raise DataFault(f"--log {path} is a pipe, and metrics go to a file")
        with open(path, "ab"):
            pass
        known = not Path(path).is_file() or _is_ours(Path(path))
    except OSError as fault:
        raise DataFault(f"--log {path} cannot be written: {fault.strerror}") from None
    if not known:
        raise DataFault(f"--log {path} holds something else than metrics: name another file, or move it away")
    if not goes_on and _has_lines(Path(path)):
        raise DataFault(
            f"--log {path} holds the metrics of another run: name another file, or move it away "
            "(a run that goes on by --resume adds to its own)"
        )


def open_log(path: str, after_step: int) -> "Log":
    """The log of a run that goes on after a step: lines of later steps are dropped.

    A run that begins, with 0, finds lines only where torchrun has restarted it; they are kept under another name.
    """
    found = Path(path)
    if _has_lines(found):
        if after_step:
            _cut(found, after_step)
        else:
            _put_aside(found)
    return Log(found)


class Log:
    """A file of JSON lines that is whole after every step: a run that is killed loses none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = open(path, "a", encoding="utf-8")  # noqa: SIM115

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


def _cut(path: Path, after_step: int) -> None:
    """A new file takes the old one's place, so that one of the two is there at any time."""
    path = Path(os.path.realpath(path))  # a link stays one
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    with open(path, "rb") as old, open(fresh, "wb") as new:
        for line in old:
            step = _step(line)
            if step is not None and step <= after_step:
                new.write(line)
    fresh.replace(path)


def _put_aside(path: Path) -> None:
    number = 1
    while (aside := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    path.rename(aside)


def _has_lines(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _is_ours(path: Path) -> bool:
    """Also if it is empty. The last line of a run that was killed may be cut off."""
    with open(path, "rb") as file:
        return all(
            _step(line) is not None or (line.startswith(b'{"step": ') and not line.endswith(b"\n")) for line in file
        )


def _step(line: bytes) -> int | None:
    """Of a whole line of metrics."""
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    if not isinstance(record, dict) or not any(name in record for name in _FIGURES):
        return None
    step = record.get("step")
    return step if isinstance(step, int) and not isinstance(step, bool) else None

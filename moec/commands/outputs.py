"""Files that a command is asked to write: one that is there is replaced only if it is what moec writes there itself."""

import re
from pathlib import Path

from moec.commands.replace_file import replace_file
from moec.dsl.diagnostics import PlanError, plan_error
from moec.dsl.plain_file import plain_file

PAGE = re.compile(rb'<!doctype html>.*<meta name="generator" content="moec">', re.DOTALL)
TRACE = re.compile(rb'\{"displayTimeUnit":"ms","otherData":\{"plan":')
HARDWARE = re.compile(rb"# Measured by moec calibrate, ")
WEIGHTS = re.compile(rb".{5}\0{3}\{", re.DOTALL)
"""The length of a header, which is below a TiB, and the header, as safetensors have them."""
CERTIFICATE = re.compile(rb'\{\n  "plan": .*\n  "moec": "')

_HEAD = 4096
"""Bytes of a file in which it says what it is."""


def check_output(path: Path, own: re.Pattern[bytes]) -> None:
    """Raise PlanError, before anything is computed, if the file can have no place or holds what others wrote."""
    if not path.absolute().parent.is_dir():
        raise _unwritable(path, "its folder is not there", f"make the folder first: mkdir -p {path.parent}")
    try:
        target = plain_file(path)
        head = _head(target) if target.exists() else None
    except OSError as fault:
        raise _unwritable(path, fault.strerror or str(fault), "name another file") from None
    if head is not None and not own.match(head):
        raise plan_error("E505", f"`{path}` is there already, and stays as it is", "name another file")


def write_output(path: Path, own: re.Pattern[bytes], text: str) -> None:
    """Write the file, or replace one that moec wrote. Raises PlanError."""
    check_output(path, own)
    try:
        replace_file(path, text.encode())
    except OSError as fault:
        raise _unwritable(path, fault.strerror or str(fault), "name a file in a folder that can be written") from None


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD)


def _unwritable(path: Path, reason: str, help: str) -> PlanError:
    return plan_error("E507", f"`{path}` cannot be written: {reason}", help)

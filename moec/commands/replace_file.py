"""Replaces a file: it is whole at every moment."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from moec.dsl.plain_file import plain_file


def replace_file(path: Path, data: bytes) -> None:
    """Put these bytes in the file's place, which keeps its mode, and stays a link if it is one. Raises OSError."""
    target = plain_file(path)
    fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        with open(fresh, "xb") as file:
            if target.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
            file.write(data)
        fresh.replace(target)
    finally:
        with suppress(OSError):
            fresh.unlink()

"""Replaces a file: it is whole at every moment."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path


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


def plain_file(path: Path) -> Path:
    """Where the links of a path lead: to a file, or to where there is nothing. Raises OSError for a device and such."""
    target = Path(os.path.realpath(path))
    if os.path.lexists(target) and not target.is_file():
        code = errno.EISDIR if target.is_dir() else errno.ELOOP if target.is_symlink() else 0
        raise OSError(code, os.strerror(code) if code else "it is no plain file")
    return target

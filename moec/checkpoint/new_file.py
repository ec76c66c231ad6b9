"""Writes a file that is not there yet: all of it is on the disk when it is closed."""

import os
from pathlib import Path

_AT_ONCE = 1 << 30  # bytes that may wait for the disk, so that no call waits for it for long


class NewFile:
    """Open for writing from `with` on. Raises OSError, and FileExistsError where there is one."""

    def __init__(self, path: Path) -> None:
        self._waiting = 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def __enter__(self) -> "NewFile":
        return self

    def __exit__(self, fault: object, *_: object) -> None:
        try:
            if fault is None:
                os.fsync(self._file)
        finally:
            os.close(self._file)

    def write(self, content: memoryview) -> None:
        """All of it; one call of the system may take less."""
        self._waiting += len(content)
        while content:
            content = content[os.write(self._file, content) :]
        if self._waiting >= _AT_ONCE:
            os.fdatasync(self._file)
            self._waiting = 0

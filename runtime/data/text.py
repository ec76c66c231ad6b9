"""Text as a stream of ids: its bytes."""

import os
import stat
import sysconfig
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
from numpy import int64, ndarray, uint8

from moec.runtime.data.source import DataFault


@dataclass(frozen=True, slots=True)
class Text:
    """Bytes in memory; a vocabulary of fewer than 256 ids has them folded into it."""

    content: ndarray  # uint8
    below: int
    fingerprint: str

    @staticmethod
    def read_files(files: Sequence[Path], below: int) -> "Text":
        """The files one after another, a line's end between them."""
        content = b"\n".join([_bytes(file) for file in files])
        return Text(numpy.frombuffer(content, uint8), below, f"text {len(content)} {zlib.crc32(content):08x}")

    def __len__(self) -> int:
        return len(self.content)

    def read(self, start: int, stop: int) -> ndarray:
        ids = self.content[start:stop].astype(int64)
        return ids % self.below if self.below < 256 else ids


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as fault:
        raise DataFault(f"{file} cannot be read: {fault.strerror}") from None


def files_below(path: Path) -> list[Path]:
    """A file, or all files of a folder by name, but for hidden ones and caches."""
    try:
        mode = path.stat().st_mode
    except OSError as fault:
        missing = isinstance(fault, FileNotFoundError)
        raise DataFault(
            f"no such file or folder: {path}" if missing else f"{path} cannot be read: {fault.strerror}"
        ) from None
    if stat.S_ISREG(mode):
        return [path]
    if not stat.S_ISDIR(mode):
        raise DataFault(f"{path} is neither a file nor a folder")
    return _below(path, skipped=("__pycache__",))


def standard_library() -> list[Path]:
    """The .py files of Python's own library, which every machine has; without its tests and what was installed."""
    skipped = ("__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "ensurepip")
    files = _below(Path(sysconfig.get_path("stdlib")), skipped)
    return [file for file in files if file.suffix == ".py"]


def _below(folder: Path, skipped: Sequence[str]) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in skipped and not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(found)

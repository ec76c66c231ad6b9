"""Files of token ids as one stream: flat, little-endian, mapped into memory and never read whole."""

import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy
from numpy import int64, ndarray

from moec.runtime.data.source import DataFault, SampleFault

WIDTHS = {".u16": "<u2", ".u32": "<u4", ".bin": "<u2"}
"""How ids lie in a file, by the end of its name, in small letters or capitals."""

_PROBES = 16  # pieces of a file that its fingerprint is over
_PROBE = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Tokens:
    """The ids of several files, one after another."""

    files: tuple[Path, ...]
    parts: tuple[ndarray, ...]
    ends: tuple[int, ...]  # of the parts, in the stream
    below: int
    fingerprint: str

    @staticmethod
    def map_files(files: Sequence[Path], below: int) -> "Tokens":
        """Files that have ids in them; `below` is the size of the vocabulary."""
        mapped = [(file, ids) for file in files if len(ids := _map(file))]
        parts = tuple([ids for _, ids in mapped])
        probes = zlib.crc32(b"".join([_probed(ids) for ids in parts]))
        ends = tuple(accumulate([len(ids) for ids in parts]))
        count = ends[-1] if ends else 0
        return Tokens(tuple([file for file, _ in mapped]), parts, ends, below, f"tokens {count} {probes:08x}")

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def read(self, start: int, stop: int) -> ndarray:
        """Ids `start` to `stop`, int64, all of the vocabulary."""
        pieces = []
        while start < stop:
            part = bisect_right(self.ends, start)
            last = min(stop, self.ends[part])
            begin = self.ends[part] - len(self.parts[part])
            pieces.append(self._checked(part, start - begin, last - begin))
            start = last
        return pieces[0] if len(pieces) == 1 else numpy.concatenate(pieces or [numpy.empty(0, int64)])

    def _checked(self, part: int, start: int, stop: int) -> ndarray:
        ids = self.parts[part][start:stop].astype(int64)
        if ids.max() >= self.below:
            place = int(numpy.argmax(ids >= self.below))
            raise SampleFault(
                f"{self.files[part]}: token {ids[place]} at position {start + place} is not in the vocabulary of "
                f"{self.below}: read tokens that were made for it, or give the plan a larger vocab"
            )
        return ids


def _map(file: Path) -> ndarray:
    """An array over the file's own bytes."""
    kind = numpy.dtype(WIDTHS[file.suffix.lower()])
    try:
        size = file.stat().st_size
        if size % kind.itemsize:
            raise DataFault(
                f"{file} has {size} bytes, which is no whole number of ids of {kind.itemsize} bytes: it is cut off, "
                f"or not a {file.suffix} file of {kind.name}"
            )
        return numpy.memmap(file, kind, "r").view(ndarray) if size else numpy.empty(0, kind)
    except OSError as fault:
        raise DataFault(f"{file} cannot be read: {fault.strerror}") from None


def _probed(ids: ndarray) -> bytes:
    """The size, and some of the bytes: all of a small file, and of a large one pieces from its start to its end."""
    content = ids.view(numpy.uint8)
    last = max(0, len(content) - _PROBE)
    starts = sorted({last * n // (_PROBES - 1) for n in range(_PROBES)})
    return b"".join([str(len(content)).encode(), *[content[start : start + _PROBE].tobytes() for start in starts]])

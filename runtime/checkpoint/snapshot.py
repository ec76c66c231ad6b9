"""A copy of a rank's own slices in the memory of its host, from which a file is written while training goes on."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from moec.checkpoint.manifest import CHUNK, Entry, File, Slice
from moec.runtime.checkpoint.dtypes import NAMES
from moec.runtime.checkpoint.layout import layout_of
from moec.runtime.checkpoint.pieces import Piece


class Snapshot:
    """Its memory is as large as the file, and is made once.

    On CUDA it is pinned, so that the copy is as fast as the link.
    """

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._layout = layout_of([piece for piece in pieces if piece.owned])
        self._cuda = any(piece.value.is_cuda for piece in pieces)
        header = self._layout.header
        self._buffer = torch.zeros(self._layout.bytes, dtype=torch.uint8, pin_memory=self._cuda)
        self._buffer[: len(header)] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
        self._copies = [self._room(*each) for each in zip(self._layout.pieces, self._layout.starts, strict=True)]

    @property
    def nbytes(self) -> int:
        """Of the file; 0 where the rank owns nothing, and writes none."""
        return self._layout.bytes if self._layout.pieces else 0

    def take(self) -> None:
        """The state as it is now. Whoever takes the next one must have written this."""
        for piece, copy in zip(self._layout.pieces, self._copies, strict=True):
            copy.copy_(piece.value.detach(), non_blocking=True)
        if self._cuda:
            torch.cuda.current_stream().synchronize()

    def write(self, path: Path) -> tuple[File, dict[str, Entry]]:
        """Into a new file, on the disk when this returns; what the manifest says of it. Raises OSError."""
        content = self._buffer.numpy().data
        header = len(self._layout.header)
        ends = (*self._layout.starts[1:], self._layout.bytes)
        entries: dict[str, Entry] = {}
        with _Writer(path) as writer:
            head = writer.write(content[:header])
            for piece, start, end in zip(self._layout.pieces, self._layout.starts, ends, strict=True):
                crc = writer.write(content[start:end])
                kept = Slice(piece.box, path.name, start, crc)
                entries[piece.key] = Entry(NAMES[piece.value.dtype], piece.shape, (kept,))
        return File(len(content), header, head), entries

    def _room(self, piece: Piece, start: int) -> Tensor:
        size = piece.value.numel() * piece.value.element_size()
        return self._buffer[start : start + size].view(piece.value.dtype).view(piece.value.shape)


class _Writer:
    """A new file. The kernel is asked to begin with the disk at once, and the last write waits for all of it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._written = 0

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, fault: object, *_: object) -> None:
        try:
            if fault is None:
                os.fsync(self._file)
        finally:
            os.close(self._file)

    def write(self, content: memoryview) -> str:
        """The check sums of its chunks."""
        return "".join([f"{crc32(self._put(chunk)):08x}" for chunk in _chunks(content)])

    def _put(self, chunk: memoryview) -> memoryview:
        done = 0
        while done < len(chunk):
            done += os.write(self._file, chunk[done:])
        self._written += done
        return chunk


def _chunks(content: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]

"""A copy of a rank's own slices in the memory of its host, from which a file is written while training goes on."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from moec.checkpoint.manifest import CHUNK, Entry, File, Slice
from moec.checkpoint.new_file import NewFile
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

    def write(self, path: Path, beat: Callable[[], None] = lambda: None) -> tuple[File, dict[str, Entry]]:
        """Into a new file, on the disk when this returns; what the manifest says of it. Raises OSError.

        `beat` is called for every chunk.
        """
        content = self._buffer.numpy().data
        header = len(self._layout.header)
        ends = (*self._layout.starts[1:], self._layout.bytes)
        entries: dict[str, Entry] = {}
        with NewFile(path) as file:
            head = _written(content[:header], file, beat)
            for piece, start, end in zip(self._layout.pieces, self._layout.starts, ends, strict=True):
                crc = _written(content[start:end], file, beat)
                kept = Slice(piece.box, path.name, start, crc)
                entries[piece.key] = Entry(NAMES[piece.value.dtype], piece.shape, (kept,))
        return File(len(content), header, head), entries

    def _room(self, piece: Piece, start: int) -> Tensor:
        size = piece.value.numel() * piece.value.element_size()
        return self._buffer[start : start + size].view(piece.value.dtype).view(piece.value.shape)


def _written(content: memoryview, file: NewFile, beat: Callable[[], None]) -> str:
    """The check sums of its chunks."""
    sums = []
    for chunk in _chunks(content):
        sums.append(f"{crc32(chunk):08x}")
        file.write(chunk)
        beat()
    return "".join(sums)


def _chunks(content: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]

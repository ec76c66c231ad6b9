"""How the slices of a rank lie in its file: in the form of safetensors, so that any reader of these can open it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from moec.checkpoint.headers import named
from moec.runtime.checkpoint.dtypes import NAMES
from moec.runtime.checkpoint.pieces import Piece


@dataclass(frozen=True, slots=True)
class Layout:
    """The header, and the pieces in the order of the file, each with the byte at which it begins."""

    header: bytes
    pieces: tuple[Piece, ...]
    starts: tuple[int, ...]
    bytes: int


def layout_of(pieces: Sequence[Piece]) -> Layout:
    """Large elements first, so that every piece begins at a multiple of its element."""
    ordered = sorted(pieces, key=lambda piece: -piece.value.element_size())
    entries, starts, end = {}, [], 0
    for piece in ordered:
        size = piece.value.numel() * piece.value.element_size()
        shape = list(piece.value.shape)
        entries[named(piece.key, piece.box)] = {
            "dtype": NAMES[piece.value.dtype],
            "shape": shape,
            "data_offsets": [end, end + size],
        }
        starts.append(end)
        end += size
    header = safetensors_header(entries)
    return Layout(header, tuple(ordered), tuple([len(header) + start for start in starts]), len(header) + end)


def safetensors_header(entries: dict[str, object]) -> bytes:
    """Eight bytes of length, then JSON, with spaces up to a multiple of 8."""
    written = json.dumps(entries, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)
    return len(written).to_bytes(8, "little") + written

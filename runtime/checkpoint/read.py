"""Reads tensors out of a checkpoint's files: only the chunks of bytes that a slice needs."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from moec.checkpoint.boxes import Box, below, common, sizes
from moec.checkpoint.files import Files
from moec.checkpoint.manifest import CHUNK, Manifest, Slice
from moec.runtime.checkpoint.dtypes import DTYPES

_MOST = 32
"""Chunks that are read at a time, unless a single row has more."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One whole checkpoint. Every method raises Damage where its files are not what it states."""

    files: Files

    @staticmethod
    def open(folder: Path) -> "Checkpoint":
        return Checkpoint(Files.open(folder))

    @property
    def folder(self) -> Path:
        return self.files.folder

    @property
    def manifest(self) -> Manifest:
        return self.files.manifest

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.files.close()

    def read(self, key: str, box: Box) -> Tensor:
        """A slice of a tensor of the state, [*sizes of the box], in memory of its own."""
        entry = self.manifest.tensors[key]
        found = torch.empty(sizes(box), dtype=DTYPES[entry.dtype])
        for each in entry.slices:
            part = common(box, each.box)
            if part is not None:
                where = tuple([slice(*span) for span in below(part, box)])
                self._copy(key, each, below(part, each.box), found[where])
        return found

    def _copy(self, key: str, each: Slice, box: Box, out: Tensor) -> None:
        """What lies in a box of a slice, a piece at a time."""
        shape, item = sizes(each.box), out.element_size()
        strides = [prod(shape[dim + 1 :]) for dim in range(len(shape))]
        start = item * sum(first * stride for (first, _), stride in zip(box, strides, strict=True))
        end = item * (sum((last - 1) * stride for (_, last), stride in zip(box, strides, strict=True)) + 1)
        first, last = start // CHUNK, -(-end // CHUNK)
        dim = next((dim for dim, (a, b) in enumerate(box) if b - a > 1), None)
        if last - first > _MOST and dim is not None:
            low, high = box[dim]
            half = (low + high) // 2
            for a, b in ((low, half), (half, high)):
                part = (*box[:dim], (a, b), *box[dim + 1 :])
                self._copy(key, each, part, out.narrow(dim, a - low, b - a))
            return
        flat = torch.frombuffer(self.files.chunks(key, each, first, last), dtype=out.dtype)
        out.copy_(flat.as_strided(sizes(box), strides, (start - first * CHUNK) // item))

"""Made-up samples, for a model whose plan names no data."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from numpy import uint64
from torch import Tensor

from moec.runtime.data.source import Sample
from moec.runtime.initial import splitmix64
from moec.runtime.job import Input


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Numbers drawn for each sample by itself: they never end, and none comes twice."""

    inputs: Sequence[Input]
    seed: int

    @property
    def fingerprint(self) -> str:
        return f"synthetic {self.seed}"

    def sample(self, index: int) -> Sample:
        return {given.name: _made_up(given, self.seed, index) for given in self.inputs}


def _made_up(given: Input, seed: int, index: int) -> Tensor:
    number = zlib.crc32(given.name.encode())
    key = splitmix64(splitmix64(numpy.array([seed], uint64)) ^ uint64(index) ^ uint64(number << 32))
    generator = torch.Generator().manual_seed(int(key[0]) >> 1)
    if given.kind == "float":
        return torch.randn(given.shape, generator=generator, dtype=torch.float64)
    return torch.randint(given.below or 2, given.shape, generator=generator)

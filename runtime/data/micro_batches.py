"""A rank's slices of the inputs of a micro-batch, read from its samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from moec.runtime.data.source import Sample, Source
from moec.runtime.job import Job
from moec.runtime.place import Axes, Place

Inputs = dict[str, Tensor]


class Reader(Protocol):
    """Gives the inputs of the micro-batch whose first sample is `first`, on the CPU."""

    def read(self, first: int) -> Inputs: ...


@dataclass(slots=True)
class Pace:
    """How far reading has come, for whoever watches from another thread."""

    samples: int = 0


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """Read when they are asked for: only the samples that are this rank's, each once; the first dim is the batch."""

    source: Source
    slices: tuple["_Slice", ...]
    dtype: torch.dtype  # of floats
    size: int  # samples of a micro-batch, over all ranks
    pace: Pace = field(default_factory=Pace)

    @staticmethod
    def of(source: Source, job: Job, place: Place, splits: Mapping[str, Sequence[Axes]]) -> "MicroBatches":
        """`splits` says over which axes each dim of an input goes."""
        size = job.batch // job.accumulate
        shapes = {given.name: given.shape for given in job.inputs}
        slices = []
        for name, (batch, *dims) in splits.items():
            key = name.partition("@")[0]  # what comes after it tells apart two ways to split one input
            part = place.part(size, batch)
            where = tuple([place.part(n, axes) for n, axes in zip(shapes[key], dims, strict=True)])
            slices.append(_Slice(name, key, range(part.start, part.stop), where))
        return MicroBatches(source, tuple(slices), job.training.dtype, size)

    def read(self, first: int) -> Inputs:
        samples: dict[int, Sample] = {}
        inputs = {}
        for part in self.slices:
            for n in part.samples:
                if n not in samples:
                    samples[n] = self.source.sample(first + n)
                    self.pace.samples += 1
            x = torch.stack([samples[n][part.key][part.where] for n in part.samples])
            inputs[part.name] = x.to(self.dtype) if x.is_floating_point() else x
        return inputs


@dataclass(frozen=True, slots=True)
class _Slice:
    name: str
    key: str  # of a sample
    samples: range  # of those of the micro-batch
    where: tuple[slice, ...]  # of each

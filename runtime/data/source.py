"""What data is to a run: samples by their number, or a fault that one line tells."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from moec.runtime.words import joined_lines

Sample = Mapping[str, Tensor]


class DataFault(Exception):
    """Data that cannot be read; the message is one line for the user. Before the first step all ranks know of it."""

    def __init__(self, said: str) -> None:
        super().__init__(joined_lines(said))


class SampleFault(DataFault):
    """A sample that cannot be used, met by those ranks that read it, in the step that reads it."""


class Source(Protocol):
    """Samples by their number, counted from the first of step 0."""

    @property
    def fingerprint(self) -> str:
        """Equal on all ranks, and after a resume, if they read the same samples under the same numbers."""
        ...

    def sample(self, index: int) -> Sample: ...


class Items(Source, Protocol):
    """A source that ends: sample 0 to its length."""

    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Part:
    """Some items in a row: those for training, or those that are held out."""

    whole: Items
    start: int
    stop: int

    @property
    def fingerprint(self) -> str:
        return f"{self.whole.fingerprint}, {self.start} to {self.stop} of {len(self.whole)}"

    def __len__(self) -> int:
        return self.stop - self.start

    def sample(self, index: int) -> Sample:
        assert 0 <= index < len(self), f"item {index} of {len(self)}"
        return self.whole.sample(self.start + index)

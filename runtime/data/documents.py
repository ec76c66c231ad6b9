"""How a stream of ids is cut into sequences, and which labels leave the loss."""

from dataclasses import dataclass
from typing import Protocol

import numpy
from numpy import int64, ndarray

IGNORED = -100
"""A label that is none: the emitted programs leave it out of the loss and of what the loss is divided by."""

_SCANNED = 1 << 20  # ids at a time


@dataclass(frozen=True, slots=True)
class Documents:
    """What ends a document in the stream, what is filler, and whether documents share a sequence."""

    separator: int | None = None
    padding: int | None = None
    apart: bool = False

    @property
    def fingerprint(self) -> str:
        """Empty where all is one document."""
        said = [(f", separator {self.separator}", self.separator is not None)]
        said += [(f", padding {self.padding}", self.padding is not None), (", documents apart", self.apart)]
        return "".join([words for words, true in said if true])

    def labels(self, ids: ndarray) -> ndarray:
        """Of ids[:-1]: the next of each, but for filler, and for what begins a document after another's end."""
        given, labels = ids[:-1], ids[1:]
        if self.separator is None and self.padding is None:
            return labels
        left_out = numpy.zeros(len(labels), bool)
        if self.separator is not None:
            left_out |= given == self.separator
        if self.padding is not None:
            left_out |= (given == self.padding) | (labels == self.padding)
        return numpy.where(left_out, IGNORED, labels)


class Stream(Protocol):
    """Ids one after another."""

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> ndarray:
        """int64, each below the size of the vocabulary; where one is not, SampleFault is raised."""
        ...


class Cut(Protocol):
    """Where each sequence lies in its stream, with the id after it, which is its last label."""

    def __len__(self) -> int: ...

    def span(self, index: int) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class InARow:
    """Sequences that touch and do not overlap. What is left at the end, less than one, is not read."""

    ids: int
    length: int

    def __len__(self) -> int:
        return max(0, self.ids - 1) // self.length

    def span(self, index: int) -> tuple[int, int]:
        return index * self.length, (index + 1) * self.length + 1


@dataclass(frozen=True, slots=True)
class Apart:
    """Each document begins a sequence of its own; one that is longer is cut into several, the last of them short."""

    starts: ndarray  # of documents
    ends: ndarray
    sequences: ndarray  # up to and with each document
    length: int

    @staticmethod
    def find(stream: Stream, separator: int, length: int) -> "Apart":
        """Reads the whole stream once."""
        pieces = range(0, len(stream), _SCANNED)
        found = [numpy.flatnonzero(stream.read(n, min(n + _SCANNED, len(stream))) == separator) + n for n in pieces]
        ends = numpy.concatenate([*[places + 1 for places in found], numpy.array([len(stream)], int64)])
        starts = numpy.concatenate([numpy.zeros(1, int64), ends[:-1]])
        labels = numpy.maximum(ends - starts - 1, 0)  # the last has none if the stream ends with a separator
        return Apart(starts, ends, numpy.cumsum(-(-labels // length)), length)

    def __len__(self) -> int:
        return int(self.sequences[-1])

    def span(self, index: int) -> tuple[int, int]:
        document = int(numpy.searchsorted(self.sequences, index, "right"))
        before = int(self.sequences[document - 1]) if document else 0
        start = int(self.starts[document]) + (index - before) * self.length
        return start, min(start + self.length + 1, int(self.ends[document]))

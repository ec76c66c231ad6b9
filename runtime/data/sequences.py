"""Items for a language model: sequences of a stream, each id's label the one after it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch

from moec.runtime.data.documents import IGNORED, Apart, Cut, Documents, InARow, Stream
from moec.runtime.data.source import DataFault, Sample
from moec.runtime.job import Input


@dataclass(frozen=True, slots=True)
class Sequences:
    """The sequences of a stream under the names that the model gives its inputs."""

    stream: Stream
    cut: Cut
    documents: Documents
    inputs: tuple[Input, ...]
    length: int

    @staticmethod
    def of(stream: Stream, inputs: Sequence[Input], documents: Documents) -> "Sequences":
        length = length_of(inputs)
        if documents.apart:
            assert documents.separator is not None, "documents are told apart by their separator"
            cut: Cut = Apart.find(stream, documents.separator, length)
        else:
            cut = InARow(len(stream), length)
        if not len(cut):
            what = "no document of two ids" if documents.apart else f"{len(stream)} ids"
            raise DataFault(f"the data has {what}, and one sample takes {length + 1}")
        return Sequences(stream, cut, documents, tuple(inputs), length)

    @property
    def fingerprint(self) -> str:
        return f"{self.stream.fingerprint}, sequences of {self.length}{self.documents.fingerprint}"

    def __len__(self) -> int:
        return len(self.cut)

    def sample(self, index: int) -> Sample:
        start, stop = self.cut.span(index)
        ids = self.stream.read(start, stop)
        given, labels = ids[:-1], self.documents.labels(ids)
        if len(given) < self.length:
            given, labels = self._filled(given, self._filler), self._filled(labels, IGNORED)
        tokens, wanted = torch.from_numpy(given), torch.from_numpy(labels)
        return {each.name: wanted if each.kind == "labels" else tokens for each in self.inputs}

    @property
    def _filler(self) -> int:
        """Where none is named, what ends a document."""
        filler = self.documents.separator if self.documents.padding is None else self.documents.padding
        assert filler is not None, "only documents that lie apart are filled up"
        return filler

    def _filled(self, ids: numpy.ndarray, filler: int) -> numpy.ndarray:
        whole = numpy.full(self.length, filler, numpy.int64)
        whole[: len(ids)] = ids
        return whole


def length_of(inputs: Sequence[Input]) -> int:
    """That of the sequences of a language model, whose inputs are tokens and labels alone."""
    lengths = {given.shape for given in inputs if given.kind in ("tokens", "labels")}
    assert len(lengths) == 1 and all(given.kind in ("tokens", "labels") for given in inputs), f"inputs {inputs}"
    ((length,),) = lengths
    return length

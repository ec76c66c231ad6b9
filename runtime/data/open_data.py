"""The data of a job: that which is asked for, or the plan's, or bytes of Python's own library, or made up."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10
from pathlib import Path

from moec.runtime.data.dataset import Dataset
from moec.runtime.data.documents import Documents, Stream
from moec.runtime.data.order import Shuffled
from moec.runtime.data.sequences import Sequences
from moec.runtime.data.source import DataFault, Items, Part, Source
from moec.runtime.data.synthetic import Synthetic
from moec.runtime.data.text import Text, files_below, standard_library
from moec.runtime.data.tokens import WIDTHS, Tokens
from moec.runtime.job import Input, Job


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of which data is read: the command line's part."""

    path: str | None = None
    documents: Documents = field(default_factory=Documents)
    held_out: float = 0.0  # the share of items that is kept out of training

    @staticmethod
    def of(options: argparse.Namespace) -> "Wanted":
        documents = Documents(options.separator, options.padding, options.documents == "apart")
        return Wanted(options.data, documents, options.held_out)


@dataclass(frozen=True, slots=True)
class Data:
    """The samples that are trained on, and those that are held out, if any."""

    training: Source
    held_out: Items | None = None


def open_source(job: Job, path: str | None, seed: int) -> Source:
    """All data of a job for training."""
    return open_data(job, Wanted(path), seed).training


def open_data(job: Job, wanted: Wanted, seed: int) -> Data:
    """What is wanted; training reads it in the order that the seed gives."""
    items = _items(job, wanted)
    if items is None:
        if wanted.held_out:
            raise DataFault(f"--held-out: the data of {job.name} is made up, so that no sample comes twice")
        return Data(Synthetic(job.inputs, seed))
    if not wanted.held_out:
        return Data(Shuffled(items, seed))
    first = len(items) - _held_out(len(items), wanted.held_out, job.batch)
    return Data(Shuffled(Part(items, 0, first), seed), Part(items, first, len(items)))


def read_text(files: Sequence[Path], inputs: Sequence[Input], seed: int) -> Shuffled:
    """The bytes of these files, as one document."""
    return Shuffled(Sequences.of(Text.read_files(files, _vocabulary(inputs)), inputs, Documents()), seed)


def _items(job: Job, wanted: Wanted) -> Items | None:
    """None where samples are made up."""
    reads_text = any(given.kind in ("tokens", "labels") for given in job.inputs)
    if not reads_text:
        if wanted.path is not None:
            raise DataFault(f"--data {wanted.path}: {job.name} has no token inputs, and reads no text")
        if wanted.documents != Documents():
            raise DataFault(
                f"{job.name} has no token inputs, and reads no documents: leave --separator and the like out"
            )
        return Dataset.load(job.data, job.inputs) if job.data is not None else None
    below = _vocabulary(job.inputs)
    _check(wanted.documents, below)
    return Sequences.of(_stream(wanted.path, below), job.inputs, wanted.documents)


def _stream(path: str | None, below: int) -> Stream:
    if path is None:
        return Text.read_files(standard_library(), below)
    files = files_below(Path(path))
    ids = [file for file in files if file.suffix.lower() in WIDTHS]
    if not ids:
        return Text.read_files(files, below)
    if len(ids) < len(files):
        other = next(file for file in files if file.suffix.lower() not in WIDTHS)
        raise DataFault(
            f"--data {path} has files of tokens, as {ids[0].name}, and others, as {other.name}: "
            "put one kind into a folder of its own"
        )
    return Tokens.map_files(ids, below)


def _vocabulary(inputs: Sequence[Input]) -> int:
    """How many ids all inputs take."""
    return min(given.below for given in inputs if given.below is not None)


def _check(documents: Documents, below: int) -> None:
    for option, token in (("--separator", documents.separator), ("--padding", documents.padding)):
        if token is not None and not 0 <= token < below:
            raise DataFault(f"{option} {token}: the vocabulary has ids from 0 to {below - 1}")
    if documents.apart and documents.separator is None:
        raise DataFault("--documents apart: say with --separator ID which token ends a document")


def _held_out(count: int, share: float, batch: int) -> int:
    """How many items are held out: at least a batch, for an evaluation reads whole ones."""
    if not 0 < share < 1:
        raise DataFault(f"--held-out {share:g}: a share lies between 0 and 1, as 0.01")
    held_out = round(share * count)
    if held_out < batch or held_out == count:
        enough = f"--held-out {_rounded_up(batch / count)}" if batch < count else "more data, or a smaller batch"
        raise DataFault(
            f"--held-out {share:g} keeps {held_out} of {count} samples out of training, "
            f"and an evaluation reads batches of {batch}: {enough}"
        )
    return held_out


def _rounded_up(share: float) -> str:
    """With two digits that count."""
    unit = 10.0 ** (floor(log10(share)) - 1)
    return f"{ceil(share / unit) * unit:.2g}"

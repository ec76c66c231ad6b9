"""Where samples come from: a text, a dataset of the user's, or a generator. Sample i is the same on every mesh."""

import importlib
import os
import sysconfig
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy
import torch
from numpy import ndarray, uint8, uint64
from torch import Tensor

from moec.runtime.initial import splitmix64
from moec.runtime.job import Input, Job

Sample = Mapping[str, Tensor]


class DataFault(Exception):
    """Data that cannot be read; the message is one line for the user."""


class Source(Protocol):
    """Samples by their number, counted from the first of step 0."""

    @property
    def fingerprint(self) -> str:
        """Equal on all ranks if they read the same data."""
        ...

    def sample(self, index: int) -> Sample: ...


def open_source(job: Job, path: str | None, seed: int) -> Source:
    """The data of a job: that at `path` if given, or the plan's, or else bytes of Python's own library, or made up."""
    reads_text = any(given.kind in ("tokens", "labels") for given in job.inputs)
    if path is not None:
        if not reads_text:
            raise DataFault(f"--data {path}: {job.name} has no token inputs, and reads no text")
        return Text.read(_user_files(Path(path)), job.inputs, seed)
    if job.data is not None:
        return Dataset.load(job.data, job.inputs)
    return Text.read(_standard_library(), job.inputs, seed) if reads_text else Synthetic(job.inputs, seed)


@dataclass(frozen=True, slots=True)
class Text:
    """Byte-level language modelling: each sample is a stretch of the text, its labels are one byte on."""

    text: ndarray  # uint8
    inputs: tuple[Input, ...]
    seed: int
    fingerprint: str

    @staticmethod
    def read(files: Sequence[Path], inputs: tuple[Input, ...], seed: int) -> "Text":
        """The files one after another."""
        try:
            content = b"\n".join([file.read_bytes() for file in files])
        except OSError as fault:
            raise DataFault(f"{fault.filename} cannot be read: {fault.strerror}") from None
        longest = max(given.shape[0] for given in inputs if given.kind in ("tokens", "labels"))
        if len(content) < longest + 1:
            raise DataFault(f"the text has {len(content)} bytes, and one sample takes {longest + 1}")
        return Text(numpy.frombuffer(content, uint8), inputs, seed, f"text {len(content)} {zlib.crc32(content):08x}")

    def sample(self, index: int) -> Sample:
        sample = {}
        for given in self.inputs:
            if given.kind not in ("tokens", "labels"):
                sample[given.name] = _made_up(given, self.seed, index)
                continue
            start = self._start(index, given.shape[0]) + (given.kind == "labels")
            ids = torch.from_numpy(self.text[start : start + given.shape[0]].astype(numpy.int64))
            sample[given.name] = ids % given.below if given.below is not None and given.below < 256 else ids
        return sample

    def _start(self, index: int, length: int) -> int:
        drawn = splitmix64(splitmix64(numpy.array([self.seed], uint64)) ^ uint64(index))
        return int(drawn[0] % uint64(len(self.text) - length))


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Numbers drawn for each sample by itself."""

    inputs: tuple[Input, ...]
    seed: int

    @property
    def fingerprint(self) -> str:
        return f"synthetic {self.seed}"

    def sample(self, index: int) -> Sample:
        return {given.name: _made_up(given, self.seed, index) for given in self.inputs}


class Indexable(Protocol):
    """Samples as mappings by input, or as tuples in the order of the plan's inputs."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> object: ...


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples of the user's own; when they are all read, from the first again."""

    samples: Indexable
    inputs: tuple[Input, ...]
    fingerprint: str

    @staticmethod
    def load(target: str, inputs: tuple[Input, ...]) -> "Dataset":
        """The object, or what the function of no arguments gives, under the name `package.module:name`."""
        module_name, _, name = target.partition(":")
        try:
            samples = vars(importlib.import_module(module_name))[name]
        except ImportError as fault:
            raise DataFault(f"data {target}: {fault}") from None
        except KeyError:
            raise DataFault(f"data {target}: module {module_name} has no {name}") from None
        if not hasattr(samples, "__getitem__"):
            samples = samples()
        return Dataset(samples, inputs, f"{target} {len(samples)}")

    def sample(self, index: int) -> Sample:
        sample = self.samples[index % len(self.samples)]
        if isinstance(sample, Mapping):
            return {given.name: torch.as_tensor(sample[given.name]) for given in self.inputs}
        assert isinstance(sample, tuple | list), f"a sample of {self.fingerprint} is a {type(sample).__name__}"
        return {given.name: torch.as_tensor(value) for given, value in zip(self.inputs, sample, strict=True)}


def _made_up(given: Input, seed: int, index: int) -> Tensor:
    number = zlib.crc32(given.name.encode())
    key = splitmix64(splitmix64(numpy.array([seed], uint64)) ^ uint64(index) ^ uint64(number << 32))
    generator = torch.Generator().manual_seed(int(key[0]) >> 1)
    if given.kind == "float":
        return torch.randn(given.shape, generator=generator, dtype=torch.float64)
    return torch.randint(given.below or 2, given.shape, generator=generator)


def _user_files(path: Path) -> list[Path]:
    """A file, or all files of a folder by name, but for hidden ones and caches."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataFault(f"no such file or folder: {path}")
    return _below(path, skipped=("__pycache__",))


def _standard_library() -> list[Path]:
    """The .py files of Python's own library, which every machine has; without its tests and what was installed."""
    skipped = ("__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "ensurepip")
    files = _below(Path(sysconfig.get_path("stdlib")), skipped)
    return [file for file in files if file.suffix == ".py"]


def _below(folder: Path, skipped: Sequence[str]) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in skipped and not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(found)

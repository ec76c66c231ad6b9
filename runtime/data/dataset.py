"""Items of the user's own: an indexable object of Python, each of whose samples is checked as it is read."""

import importlib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Protocol

import torch
from torch import Tensor

from moec.runtime.data.documents import IGNORED
from moec.runtime.data.source import DataFault, Sample, SampleFault
from moec.runtime.installed import is_installed
from moec.runtime.job import Input
from moec.runtime.words import error_text


class Indexable(Protocol):
    """Samples as mappings by input, or as tuples in the order of the plan's inputs."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> object: ...


@dataclass(frozen=True, slots=True)
class Dataset:
    """The samples of an object under the name `package.module:name`."""

    target: str
    samples: Indexable
    inputs: tuple[Input, ...]
    count: int
    _one_at_a_time: Lock = field(default_factory=Lock)  # a user's code need not bear two threads

    @staticmethod
    def load(target: str, inputs: Sequence[Input]) -> "Dataset":
        """The object, or what the function of no arguments gives."""
        try:
            samples = _given(target)
            count = len(samples)
        except DataFault:
            raise
        except ImportError as fault:
            raise DataFault(f"data {target}: {fault}") from None
        except BaseException as error:  # also sys.exit, which is as much of the user's
            raise DataFault(f"data {target}: {error_text(error)}{_place(error)}") from error
        if not count:
            raise DataFault(f"data {target}: it has no samples")
        return Dataset(target, samples, tuple(inputs), count)

    @property
    def fingerprint(self) -> str:
        return f"{self.target} {self.count}"

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int) -> Sample:
        found = f"sample {index} of {self.target}"
        try:
            with self._one_at_a_time:
                given = self.samples[index]
            return {each.name: _tensor(value, each, found) for each, value in self._named(given, found)}
        except SampleFault:
            raise
        except BaseException as error:  # also sys.exit, which would end this thread alone
            raise SampleFault(f"{found}: {error_text(error)}{_place(error)}") from error

    def _named(self, given: object, found: str) -> list[tuple[Input, object]]:
        """A value for each of the plan's inputs."""
        names = ", ".join([each.name for each in self.inputs])
        if isinstance(given, Mapping):
            missing = [each.name for each in self.inputs if each.name not in given]
            if missing:
                has = ", ".join([str(key) for key in given]) or "nothing"
                raise SampleFault(f"{found} has no {missing[0]}: the plan's inputs are {names}, and it has {has}")
            return [(each, given[each.name]) for each in self.inputs]
        if not isinstance(given, tuple | list):
            raise SampleFault(f"{found} is {_kind(given)}: give a mapping, or a tuple, of {names}")
        if len(given) != len(self.inputs):
            raise SampleFault(f"{found} has {len(given)} values, and the plan {len(self.inputs)} inputs: {names}")
        return list(zip(self.inputs, given, strict=True))


def _given(target: str) -> Indexable:
    module_name, _, name = target.partition(":")
    names = vars(importlib.import_module(module_name))
    if name not in names:
        raise DataFault(f"data {target}: module {module_name} has no {name}")
    return names[name] if hasattr(names[name], "__getitem__") else names[name]()


def _tensor(value: object, given: Input, found: str) -> Tensor:
    """The value as the input's tensor."""
    try:
        x = torch.as_tensor(value)
    except Exception:
        raise SampleFault(f"{found}: {given.name} is {_kind(value)}, of which no tensor can be made") from None
    if tuple(x.shape) != given.shape:
        raise SampleFault(f"{found}: {given.name} has shape {list(x.shape)}, and the plan says {list(given.shape)}")
    if given.kind == "float":
        if not x.is_floating_point():
            raise SampleFault(f"{found}: {given.name} is {_dtype(x)}, and the plan says float: x.float() makes it one")
        return x
    if x.is_floating_point() or x.is_complex():
        raise SampleFault(f"{found}: {given.name} is {_dtype(x)}, and the plan says int: x.long() makes it one")
    return _within(x.long(), given, found)


def _within(x: Tensor, given: Input, found: str) -> Tensor:
    """Of the ids that the plan allows, or ignored."""
    if given.below is None or not x.numel():
        return x
    low, high = torch.aminmax(x)
    if high >= given.below or low < 0:
        wrong = x[(x >= given.below) | ((x < 0) & (x != IGNORED))]
        if wrong.numel():
            raise SampleFault(f"{found}: {given.name} has {wrong[0]}, and the plan says ints below {given.below}")
    return x


def _place(error: BaseException) -> str:
    """The user's line that raised: the last that is neither Python's own nor of an installed package."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if _may_be_the_users(each.filename)]
    return f", at {Path(frames[-1].filename).name}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""


def _may_be_the_users(file: str) -> bool:
    return file != __file__ and not is_installed(file)


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")

"""Initial values from files of weights: one in the form of safetensors, or a folder of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from moec.checkpoint.plain_json import printable
from moec.runtime.given_files import Given, given_tensors
from moec.runtime.initial import Initial
from moec.runtime.job import Job, Stated
from moec.runtime.module_values import ModelFault, ModuleValues
from moec.runtime.shard import Where
from moec.runtime.weights import Values
from moec.runtime.words import some

_ROWS = 1024  # of two tensors that are compared at a time


@dataclass(frozen=True, slots=True)
class GivenWeights:
    """Every weight that the model saves is read from the files, only the slice that is asked for.

    Buffers that the model does not save have the values that its own code gives.
    """

    path: Path
    files: Mapping[str, Path]  # by the name of the tensor
    names: Mapping[str, str]  # of a weight: that of the tensor, which may be another of its names
    otherwise: Values
    _open: dict[Path, safe_open] = field(default_factory=dict)

    @staticmethod
    def of(path: Path, job: Job, otherwise: Values, unread: Collection[str] = ()) -> "GivenWeights":
        """Raises ModelFault, once for all tensors that are missing, unknown, of another shape, or contradictory.

        `unread` are names that the model has, too, and that none of its programs reads: they are passed over.
        """
        found = given_tensors(path)
        names = {name: _name(name, weight, found) for name, weight in job.weights.items() if weight.saved}
        known = {other for name, weight in job.weights.items() for other in (name, *weight.also)}
        lines = [
            *some("missing", [name for name in names if names[name] not in found]),
            *some("not of the model", [printable(name) for name in sorted(found.keys() - known - set(unread))]),
            *some("of another shape", _misshapen(job, names, found)),
            *some("not of floating point", _no_floats(job, names, found)),
        ]
        lines = lines or some("not the same under both of its names", _contradictions(job, found))
        if lines:
            raise ModelFault("\n".join([f"{path} does not have the weights of {job.name}", *lines]))
        return GivenWeights(path, {name: given.file for name, given in found.items()}, names, otherwise)

    def __call__(self, name: str, shape: Sequence[int], init: str, where: Where) -> Tensor:
        """float64, or complex128."""
        if name not in self.names:
            return self.otherwise(name, shape, init, where)
        tensor, file = self.names[name], self.files[self.names[name]]
        if file not in self._open:
            self._open[file] = safe_open(file, framework="pt")
        opened = self._open[file]
        found = opened.get_slice(tensor)[where] if where else opened.get_tensor(tensor)
        return found.to(torch.complex128 if found.is_complex() else torch.float64)


def initial_values(job: Job, seed: int) -> Values:
    """Where a job's weights begin: the files that its plan names, or what its model is made with under a seed."""
    own = ModuleValues(job.model, seed) if job.model else None
    values = Initial(seed, own)
    return GivenWeights.of(Path(job.initial), job, values, own.names if own else ()) if job.initial else values


def _name(name: str, weight: Stated, found: Mapping[str, object]) -> str:
    """Which of its names a weight has in the files; its own where it has none."""
    return next((other for other in (name, *weight.also) if other in found), name)


def _misshapen(job: Job, names: Mapping[str, str], found: Mapping[str, Given]) -> list[str]:
    wrong = []
    for name, tensor in names.items():
        shape = job.weights[name].shape
        if tensor in found and found[tensor].shape != shape:
            wrong.append(f"{tensor} is {list(found[tensor].shape)}, and the model's {list(shape)}")
    return wrong


def _no_floats(job: Job, names: Mapping[str, str], found: Mapping[str, Given]) -> list[str]:
    """Whole numbers given for what is trained: no training leaves such."""
    given = {tensor: found[tensor] for name, tensor in names.items() if job.weights[name].trainable and tensor in found}
    return [f"{name} is {its.dtype}" for name, its in given.items() if not its.dtype.startswith(("F", "BF", "C"))]


def _contradictions(job: Job, found: Mapping[str, Given]) -> list[str]:
    """Weights that the files have under two names, with other values under each."""
    wrong = []
    for name, weight in job.weights.items():
        first, *others = [other for other in (name, *weight.also) if other in found] or [name]
        wrong += [f"{first} and {other}" for other in others if not _alike(first, other, found)]
    return wrong


def _alike(one: str, other: str, found: Mapping[str, Given]) -> bool:
    """Some rows at a time, so that tensors of any size fit."""
    if found[one].shape != found[other].shape:
        return False
    with safe_open(found[one].file, framework="pt") as a, safe_open(found[other].file, framework="pt") as b:
        if not found[one].shape:
            return bool(a.get_tensor(one).equal(b.get_tensor(other)))
        first, second = a.get_slice(one), b.get_slice(other)
        starts = range(0, found[one].shape[0], _ROWS)
        return all(first[start : start + _ROWS].equal(second[start : start + _ROWS]) for start in starts)

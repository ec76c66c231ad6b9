"""Initial values from files of weights: one in the form of safetensors, or a folder of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from moec.runtime.initial import Initial
from moec.runtime.job import Job, Stated
from moec.runtime.module_values import ModelFault, ModuleValues
from moec.runtime.shard import Where
from moec.runtime.weights import Values
from moec.runtime.words import some

_INDEX = "model.safetensors.index.json"


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
    def of(path: Path, job: Job, otherwise: Values) -> "GivenWeights":
        """Raises ModelFault, once for all tensors that are missing, unknown, or of another shape."""
        files = _files(path)
        found = {}
        for file in files:
            found |= {name: (file, shape) for name, shape in _shapes(file).items()}
        names = {name: _name(name, weight, found) for name, weight in job.weights.items() if weight.saved}
        known = {other for name, weight in job.weights.items() for other in (name, *weight.also)}
        lines = [
            *some("missing", [name for name in names if names[name] not in found]),
            *some("not of the model", sorted(found.keys() - known)),
            *some("of another shape", _misshapen(job, names, found)),
        ]
        if lines:
            raise ModelFault("\n".join([f"{path} does not have the weights of {job.name}", *lines]))
        return GivenWeights(path, {name: file for name, (file, _) in found.items()}, names, otherwise)

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
    values = Initial(seed, ModuleValues(job.model, seed) if job.model else None)
    return GivenWeights.of(Path(job.initial), job, values) if job.initial else values


def fingerprint(path: Path) -> str:
    """Of the names and sizes of the files, which all ranks must find alike."""
    return " ".join([f"{file.name} {file.stat().st_size}" for file in _files(path)])


def _files(path: Path) -> list[Path]:
    """The file, or those of a folder: what its index names, or else all of them."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ModelFault(f"initial weights: {path} is not there")
    index = path / _INDEX
    if not index.is_file():
        found = sorted(path.glob("*.safetensors"))
        if not found:
            raise ModelFault(f"initial weights: {path} holds no .safetensors file")
        return found
    try:
        named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelFault(f"initial weights: {index} is no index of safetensors files") from None
    for name in named:
        if not isinstance(name, str) or Path(name).name != name or not (path / name).is_file():
            raise ModelFault(f"initial weights: {index} names {name!r}, which is no file beside it")
    return [path / name for name in named]


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as fault:
        raise ModelFault(f"initial weights: {file} cannot be read: {fault}") from None


def _name(name: str, weight: Stated, found: Mapping[str, object]) -> str:
    """Which of its names a weight has in the files; its own where it has none."""
    return next((other for other in (name, *weight.also) if other in found), name)


def _misshapen(job: Job, names: Mapping[str, str], found: Mapping[str, tuple[Path, tuple[int, ...]]]) -> list[str]:
    wrong = []
    for name, tensor in names.items():
        shape = job.weights[name].shape
        if tensor in found and found[tensor][1] != shape:
            wrong.append(f"{tensor} is {list(found[tensor][1])}, and the model's {list(shape)}")
    return wrong

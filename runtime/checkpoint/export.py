"""Writes the weights of a checkpoint as a module's own: whole tensors under its names, in the form of safetensors."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from moec.checkpoint.boxes import whole
from moec.checkpoint.damage import Damage
from moec.checkpoint.plain_json import printable
from moec.runtime.checkpoint.dtypes import DTYPES, NAMES
from moec.runtime.checkpoint.layout import safetensors_header
from moec.runtime.checkpoint.read import Checkpoint

_WEIGHT = "weight/"


@dataclass(frozen=True, slots=True)
class Exported:
    """One tensor as it will be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def export(checkpoint: Checkpoint, output: Path, dtype: torch.dtype | None, most: int) -> list[Path]:
    """Write the weights to a file, or above `most` bytes to several beside it, with an index; which.

    What an earlier export to the same name has left in another form goes, before anything that could be taken for it.
    Floating point weights become `dtype` if it is given. A tensor at a time is in memory. What has the names of the
    files is replaced when all of them are written, the index last. Raises Damage, OSError.
    """
    shards = _shards(_tensors(checkpoint, dtype), most)
    paths = _paths(output, len(shards))
    fresh = [path.with_name(f".{path.name}.{os.getpid()}.new") for path in paths]
    try:
        for path, tensors in zip(fresh, shards, strict=True):
            _write(path, tensors, checkpoint)
        if len(shards) > 1:
            index = output.with_name(f"{output.name}.index.json")
            paths.append(index)
            fresh.append(index.with_name(f".{index.name}.{os.getpid()}.new"))
            fresh[-1].write_text(_index(shards, paths), encoding="utf-8")
        for path in _other_forms(output, alone=len(shards) == 1):
            path.unlink()
        for new, path in zip(fresh, paths, strict=True):
            new.replace(path)
    finally:
        for path in fresh:
            path.unlink(missing_ok=True)
    return paths


def _tensors(checkpoint: Checkpoint, dtype: torch.dtype | None) -> list[Exported]:
    """In the order of the plan's weights, which is that of the model; without buffers that a module does not save."""
    found = []
    for name, stated in _stated(checkpoint).items():
        entry = checkpoint.manifest.tensors.get(_WEIGHT + name)
        if entry is not None and stated.get("saved", True):
            own = DTYPES[entry.dtype]
            found.append(Exported(name, dtype if dtype and own.is_floating_point else own, entry.shape))
    if not found:
        raise Damage(f"{checkpoint.folder} states no weight of its model")
    return found


def left_out(checkpoint: Checkpoint) -> list[str]:
    """What the module saves, and its checkpoint does not have, since no program reads it."""
    names = checkpoint.manifest.plan.get("unread", [])
    return [printable(name) for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _stated(checkpoint: Checkpoint) -> dict[str, dict[str, object]]:
    weights = checkpoint.manifest.plan.get("weights")
    if not isinstance(weights, dict) or not all(isinstance(each, dict) for each in weights.values()):
        raise Damage(f"{checkpoint.folder} does not state the weights of its plan")
    return weights


def _shards(tensors: Sequence[Exported], most: int) -> list[list[Exported]]:
    """Tensors in order, as many to a file as go into it."""
    shards: list[list[Exported]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(each.nbytes for each in shards[-1]) + tensor.nbytes > most:
            shards.append([])
        shards[-1].append(tensor)
    return shards


def _paths(output: Path, count: int) -> list[Path]:
    if count == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{i + 1:05d}-of-{count:05d}{output.suffix}") for i in range(count)]


def _other_forms(output: Path, alone: bool) -> list[Path]:
    """The index and the parts that lie under this name; and the one file, unless that is what is written."""
    part = re.compile(re.escape(output.stem) + r"-[0-9]{5,}-of-[0-9]{5,}" + re.escape(output.suffix))
    names = {f"{output.name}.index.json", *([] if alone else [output.name])}
    found = [path for path in output.parent.iterdir() if path.name in names or part.fullmatch(path.name)]
    return sorted([path for path in found if path.is_file()], key=lambda path: path.name not in names)


def _write(path: Path, tensors: Sequence[Exported], checkpoint: Checkpoint) -> None:
    entries, end = {}, 0
    for each in tensors:
        span = [end, end + each.nbytes]
        entries[each.name] = {"dtype": NAMES[each.dtype], "shape": list(each.shape), "data_offsets": span}
        end += each.nbytes
    with open(path, "xb") as file:
        file.write(safetensors_header({"__metadata__": {"format": "pt"}, **entries}))
        for content in _contents(tensors, checkpoint):
            file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _contents(tensors: Sequence[Exported], checkpoint: Checkpoint) -> Iterator[memoryview]:
    for each in tensors:
        value: Tensor = checkpoint.read(_WEIGHT + each.name, whole(each.shape)).to(each.dtype)
        yield value.contiguous().view(-1).view(torch.uint8).numpy().data


def _index(shards: Sequence[Sequence[Exported]], paths: Sequence[Path]) -> str:
    """As others write it, so that they can read it."""
    names: Mapping[str, str] = {
        each.name: path.name for each_of, path in zip(shards, paths, strict=False) for each in each_of
    }
    total = sum(each.nbytes for tensors in shards for each in tensors)
    return json.dumps({"metadata": {"total_size": total}, "weight_map": names}, indent=2) + "\n"

"""Weights that several ranks have are the same on all of them: check-sums of their bits, compared through the store.

Nothing here is a collective. Ranks that have the same part of the same weights are of one class; the first of a class
to come leaves its check-sum, and the others compare theirs with it. Operations on GPUs that add in any order, or memory
that errs, can make copies drift.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moec.runtime.run import Run
from moec.runtime.shard import Shard
from moec.runtime.store import Store

_PIECE = 1 << 22  # elements that are summed at a time, which bounds the memory it takes
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class Difference:
    """Weights that are not the same on all ranks that have the same part of them."""

    weights: tuple[str, ...]  # what the first has changed, the others may have followed
    odd: tuple[int, ...]  # the ranks that are fewer
    others: tuple[int, ...]


class Copies:
    """The copies that one rank has. All ranks compare at the same steps."""

    def __init__(self, run: Run, store: Store) -> None:
        self._run, self._store = run, store
        self._rank, self._world = run.place.rank, run.job.world_size
        self._classes = _classes(list(run.weights.shards.values()))
        self._before: list[str] = []  # keys that this rank left at the last comparison

    def compare(self) -> str | None:
        """The key of a class that is not the same now, as far as this rank is the one to see it."""
        sums = _sums(self._run)
        step = self._run.step
        self._store.set(f"copies/{self._rank}", json.dumps({"step": step, "sums": sums}))
        left: list[str] = []
        differs = [key for key, names in self._classes.items() if not self._agrees(key, names, sums, left)]
        for key in self._before:
            self._store.delete_key(key)
        self._before = left
        return differs[0] if differs else None

    def difference(self, key: str) -> Difference:
        """Which weights of a class it is, and on which ranks, of those that have come so far."""
        sums = self._notes()
        differing = {part: _alike(part, sums) for part in self._classes[key]}
        differing = {part.partition(" ")[0]: ranks for part, ranks in differing.items() if len(ranks) > 1}
        few, *many = min(differing.values(), key=lambda ranks: len(ranks[0]))
        return Difference(tuple(differing), tuple(few), tuple(sorted(rank for ranks in many for rank in ranks)))

    def wait(self, seconds: float) -> None:
        """For ranks that have not compared yet: of two that differ, none is odd."""
        deadline = time.monotonic() + seconds
        while len(self._notes()) < self._world and time.monotonic() < deadline:
            time.sleep(0.1)

    def _agrees(self, key: str, names: Sequence[str], sums: Mapping[str, str], left: list[str]) -> bool:
        mine = _digest([sums[name] for name in names])
        place = f"copies/{self._run.step}/{key}"
        first, _, theirs = self._store.compare_set(place, "", f"{self._rank} {mine}").decode().partition(" ")
        if int(first) == self._rank:
            left.append(place)
        return theirs == mine

    def _notes(self) -> dict[int, Mapping[str, str]]:
        """What ranks say of this step."""
        present = [rank for rank in range(self._world) if self._store.check([f"copies/{rank}"])]
        notes = {rank: json.loads(self._store.get(f"copies/{rank}")) for rank in present}
        return {rank: note["sums"] for rank, note in notes.items() if note["step"] == self._run.step}


def _alike(part: str, sums: Mapping[int, Mapping[str, str]]) -> list[list[int]]:
    """Ranks by what they have of a part, those that are fewest first."""
    alike: dict[str, list[int]] = {}
    for rank, theirs in sums.items():
        if part in theirs:
            alike.setdefault(theirs[part], []).append(rank)
    return sorted(alike.values(), key=len)


def _classes(shards: Sequence[Shard]) -> dict[str, list[str]]:
    """Parts of weights by the axes that split them, which decide who has the same; each class by a key of its parts."""
    together: dict[tuple[str, ...], list[str]] = {}
    for shard in shards:
        together.setdefault((shard.weight.reduce, *sorted(shard.weight.axes)), []).append(part_of(shard))
    return {_digest(sorted(parts)): sorted(parts) for parts in together.values()}


def part_of(shard: Shard) -> str:
    """A weight, and the part of it that a shard is."""
    return f"{shard.name} {','.join(f'{part.start}:{part.stop}' for part in shard.where)}"


def _sums(run: Run) -> dict[str, str]:
    """Of every part of a weight that this rank has. Waits for the device once."""
    shards = run.weights.shards.values()
    sums = torch.stack([checksum(shard.value) for shard in shards]).tolist()
    return {part_of(shard): f"{a:x} {b:x}" for shard, (a, b) in zip(shards, sums, strict=True)}


def checksum(x: Tensor) -> Tensor:
    """[2] int64: the sum of the bits of all elements, and of their squares, so that changes do not cancel out."""
    bits = x.detach().reshape(-1).view(_INTEGERS[x.element_size()])
    total = torch.zeros(2, dtype=torch.int64, device=x.device)
    for piece in bits.split(_PIECE):
        wide = piece.long()
        total += torch.stack((wide.sum(), (wide * wide).sum()))
    return total


def _digest(words: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(words).encode(), digest_size=8).hexdigest()

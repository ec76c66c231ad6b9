"""The weights of a stage on one rank, as its functions read them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace

import torch
from torch import Tensor

from moec.runtime.buffers import Family, allocate, stacked
from moec.runtime.place import place_of
from moec.runtime.shard import Shard, Weight, Where, check_stated

__all__ = ["Values", "Weight", "Weights"]

Values = Callable[[str, Sequence[int], str, Where], Tensor]
"""(full name, whole shape, init, slice of the whole) -> float64 values: `Initial`, or those of a given model."""

Stacks = Mapping[str, Mapping[str, Sequence[str]]]
"""Of a kind of unit: the key of a weight that has the rows of several, and the keys of these, in order."""


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of a rank. Iterates over the stage's UNITS: for each the instances here, each with its weights.

    A stage writes `embed, layers = run.weights` and `for w in layers: ... w.wq`.
    """

    units: tuple[tuple[SimpleNamespace, ...], ...]
    kinds: Mapping[str, tuple[SimpleNamespace, ...]]
    shards: Mapping[str, Shard]  # by full name
    padded: tuple[Shard, ...]
    families: tuple[Family, ...]

    def __iter__(self) -> Iterator[tuple[SimpleNamespace, ...]]:
        return iter(self.units)

    def __getitem__(self, unit: int | str) -> tuple[SimpleNamespace, ...]:
        """Of the unit at this place of UNITS, or of all units of a kind."""
        return self.kinds[unit] if isinstance(unit, str) else self.units[unit]

    def __len__(self) -> int:
        return len(self.units)

    @staticmethod
    def create(stage: ModuleType, rank: ModuleType, dtype: torch.dtype, device: torch.device | str) -> "Weights":
        """Make this rank's slices of the weights that the stage's UNITS have, all zero: see AdamW.initialise."""
        place = place_of(rank)
        tables: Mapping[str, Mapping[str, Weight]] = stage.WEIGHTS
        check_stated(rank.SLICES, tables, place)
        stacks: Stacks = stage.STACKED if hasattr(stage, "STACKED") else {}
        side_by_side = _side_by_side(stage.UNITS, tables, stacks)
        shards, families = allocate(_by_name(stage.UNITS, tables), side_by_side, place, dtype, torch.device(device))
        units = []
        kinds: dict[str, tuple[SimpleNamespace, ...]] = {}
        for kind, prefixes in stage.UNITS:
            instances = tuple([_instance(tables[kind], stacks.get(kind, {}), prefix, shards) for prefix in prefixes])
            units.append(instances)
            kinds[kind] = (*kinds.get(kind, ()), *instances)
        padded = tuple([shard for shard in shards.values() if shard.padded])
        return Weights(tuple(units), kinds, shards, padded, families)

    def zero_gradients(self) -> None:
        for family in self.families:
            family.gradients.zero_()

    def clear_padding(self) -> None:
        """Gradients of padding are zero, whatever a region put there."""
        for shard in self.padded:
            if shard.value.grad is not None:
                kept = shard.value.grad[shard.inside].clone()
                shard.value.grad.zero_()
                shard.value.grad[shard.inside] = kept


def _instance(
    table: Mapping[str, Weight], stacks: Mapping[str, Sequence[str]], prefix: str, shards: Mapping[str, Shard]
) -> SimpleNamespace:
    values = {key: shards[_full_name(prefix, weight)].value for key, weight in table.items()}
    return SimpleNamespace(
        **values, **{key: stacked([values[part] for part in parts]) for key, parts in stacks.items()}
    )


def _side_by_side(
    units: Sequence[tuple[str, Sequence[str]]], tables: Mapping[str, Mapping[str, Weight]], stacks: Stacks
) -> list[tuple[str, ...]]:
    """Full names of the weights that are to lie one after the other."""
    return [
        tuple([_full_name(prefix, tables[kind][part]) for part in parts])
        for kind, prefixes in units
        for prefix in prefixes
        for parts in stacks.get(kind, {}).values()
    ]


def _by_name(
    units: Sequence[tuple[str, Sequence[str]]], tables: Mapping[str, Mapping[str, Weight]]
) -> dict[str, Weight]:
    """Weights by full name. One that several units share has one slice and one sum."""
    named: dict[str, Weight] = {}
    for kind, prefixes in units:
        for prefix in prefixes:
            for weight in tables[kind].values():
                name = _full_name(prefix, weight)
                if isinstance(weight.decay, tuple):
                    weight = replace(weight, decay=prefix in weight.decay)
                first = named.setdefault(name, weight)
                same = (first.shape, first.split, first.reduce) == (weight.shape, weight.split, weight.reduce)
                assert same, f"units that share {name} state it differently: {first} and {weight}"
    return named


def _full_name(prefix: str, weight: Weight) -> str:
    return f"{prefix}.{weight.name}" if prefix else weight.name

"""Names the values of straight-line text as a person would: the model's own names, used again when they are free."""

import keyword
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from moec.compiler.unique import unique


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text, as far as names go: what it reads, and then what it binds."""

    reads: tuple[str, ...]
    binds: tuple[str, ...]


def name_values(
    lines: Sequence[Line],
    given: Mapping[str, str],
    wishes: Mapping[str, str],
    reserved: Collection[str],
    kept: Iterable[str] = (),
) -> dict[str, str]:
    """A Python name for every value; `given` are parameters, `kept` are values that live to the end.

    Two values share a name only if the first is not read after the second is bound.
    """
    last = {name: place for place, line in enumerate(lines) for name in line.reads}
    last |= dict.fromkeys(kept, len(lines))
    names = dict(given)
    holder = {name: value for value, name in given.items()}
    for place, line in enumerate(lines):
        bound: set[str] = set()
        for value in line.binds:
            if value in names and names[value] not in bound:
                bound.add(names[value])
                continue
            busy = {name for name, held in holder.items() if last.get(held, -1) > place} | bound
            name = unique(identifier(wishes.get(value, ""), reserved), busy)
            names[value] = name
            holder[name] = value
            bound.add(name)
    return names


def identifier(wish: str, reserved: Collection[str] = ()) -> str:
    """A wish as a Python name that means nothing else."""
    name = wish if wish.isidentifier() and wish.isascii() else "x"
    return f"{name}_" if keyword.iskeyword(name) or name in reserved else name


def weight_keys(weights: Sequence[str], reserved: Collection[str] = ()) -> dict[str, str]:
    """Short names for the weights of a unit, by their names in the module.

    `attn.wq.weight` is wq, `fc.bias` is fc_bias; where that is not unique, more of the path is used.
    """
    keys: dict[str, str] = {}
    paths = {weight: _path(weight) for weight in weights}
    for weight, path in paths.items():
        least = 2 if weight.endswith(".bias") else 1
        for length in range(least, len(path) + 1):
            key = identifier(_tail(path, length), reserved)
            rivals = (_tail(other, length) for name, other in paths.items() if name != weight)
            if key not in rivals and key not in keys.values():
                break
        else:
            key = unique(identifier("_".join(path), reserved), set(keys.values()))
        keys[weight] = key
    return keys


def common_name(names: Sequence[str]) -> str:
    """One name for several: `wqkv` for wq, wk and wv, `qkv_proj` for q_proj and so on, `gate_up` for gate and up."""
    head = _alike(names)
    tail = _alike([name[head:][::-1] for name in names])
    middles = [name[head : len(name) - tail] for name in names]
    if all(len(middle) == 1 for middle in middles):
        return names[0][:head] + "".join(middles) + names[0][len(names[0]) - tail :]
    return "_".join(names)


def _alike(names: Sequence[str]) -> int:
    """How many characters all of them begin with."""
    return sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False)))


def _path(weight: str) -> list[str]:
    """The parts of a name, without a last `weight`."""
    parts = [part for part in weight.split(".") if part]
    return parts[:-1] if parts[-1] == "weight" and len(parts) > 1 else parts


def _tail(path: list[str], length: int) -> str:
    return "_".join(path[-length:])

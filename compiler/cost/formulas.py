"""Figures as formulas over the plan's symbols: sizes of the model, and sizes of axes under their names."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import prod

from sympy import Add, Expr, Integer, Mul, Symbol, ceiling

from moec.compiler.cost.dry_run import Rank, dry_run
from moec.compiler.cost.passes import Kept, Moment
from moec.compiler.cost.recorder import Storage
from moec.compiler.emit import SMALL
from moec.compiler.placement import Axes
from moec.compiler.program import Program, Stage
from moec.compiler.sizes import Sizes


@dataclass(frozen=True, slots=True)
class Formula:
    """An expression with the values of its symbols. `rest` is what it leaves out, such as padding."""

    expression: Expr
    values: Mapping[str, float]

    @property
    def value(self) -> float:
        numbers = [(symbol, self.values[str(symbol)]) for symbol in self.expression.free_symbols]
        return float(self.expression.subs(numbers))

    @property
    def symbols(self) -> list[str]:
        return sorted(str(symbol) for symbol in self.expression.free_symbols)

    def substituted(self) -> str:
        """The expression with numbers in the place of its symbols."""
        return re.sub(r"[A-Za-z_]\w*(?!\w*\()", self._number, str(self.expression))

    def _number(self, match: re.Match[str]) -> str:
        value = self.values.get(match[0])
        return match[0] if value is None else f"{value:g}" if value != int(value) else str(int(value))


def elements_of_weights(program: Program, stage: Stage, trained: bool = True) -> Formula:
    """Of one rank of a stage; of a weight that several calls share, once."""
    mesh = program.plan.mesh
    values: dict[str, float] = {name: float(size) for name, size in program.sizes.sizings[0].items()}
    values |= {str(symbol): float(both[0]) for symbol, both in program.sizes.opaque.items()}
    counted: dict[Expr, int] = defaultdict(int)
    seen: set[str] = set()
    for name, parameter, value in program.weights(stage.calls):
        shared = program.shared.get(name, name)
        if shared in seen or parameter.trainable != trained:
            continue
        seen.add(shared)
        split = zip(value.shape, value.placement.split, strict=True)
        parts = [_part(size, axes, program) for size, axes in split]
        counted[Mul(*parts)] += 1
    values |= {atom.name.replace(".", "_"): float(atom.size) for atom in mesh.atoms}
    terms = [Mul(Integer(count), term) for term, count in counted.items()]
    return Formula(Add(*terms), values)


def _part(size: Expr, axes: Axes, program: Program) -> Expr:
    """A rank's part of a size: divided by its axes, rounded up where it does not divide."""
    count = prod(program.plan.mesh.size((axis,)) for axis in axes)
    divided = size / Mul(*(Symbol(axis.replace(".", "_"), positive=True, integer=True) for axis in axes))
    whole = int(program.sizes.value(size, 0))
    return divided if whole % count == 0 else ceiling(divided)


class Activations:
    """The tensors that a micro-batch makes on one stage, each's bytes as a formula over the names of the emitted text.

    The text is run a second time at the small sizes, and what both sizes have in common is the formula.
    """

    def __init__(self, program: Program, rank: Rank) -> None:
        small = dry_run(program, sizing=SMALL)[rank.stage]
        names = rank.sizes.keys() & small.sizes.keys()
        self._rank = rank
        self._sizes = Sizes(tuple({name: sizes[name] for name in names} for sizes in (rank.sizes, small.sizes)))
        self._like = _side_by_side(rank.done.storages, small.done.storages)

    def kept(self) -> list[tuple[Kept, Formula]]:
        """What a micro-batch keeps for its backward; those of one loop and region with one formula are one."""
        loops = {kept.storage.number: kept for kept in self._rank.kept}
        found = self._joined([(kept.loop, kept.storage) for kept in self._rank.kept])
        return [(loops[storage.number], formula) for storage, formula in found]

    def alive(self, moment: Moment) -> list[tuple[Storage, Formula]]:
        """What a pass has made by a moment, the largest first; those of one region with one formula are one."""
        found = self._joined([(moment.loop, storage) for storage in moment.alive])
        return sorted(found, key=lambda each: -each[1].value)

    def _joined(self, storages: Sequence[tuple[str, Storage]]) -> list[tuple[Storage, Formula]]:
        joined: dict[tuple[str, str, Expr], tuple[Storage, int]] = {}
        for loop, storage in storages:
            key = loop, storage.region, self._bytes(storage)
            joined[key] = storage, joined.get(key, (storage, 0))[1] + 1
        values = {name: float(size) for name, size in self._rank.sizes.items()}
        values |= {str(symbol): float(pair[0]) for symbol, pair in self._sizes.opaque.items()}
        found = [(storage, Mul(Integer(count), key[2])) for key, (storage, count) in joined.items()]
        return [(storage, Formula(expression, values)) for storage, expression in found]

    def _bytes(self, storage: Storage) -> Expr:
        pairs = zip(storage.shape, self._like[storage.number].shape, strict=True)
        return Mul(Integer(storage.itemsize), *[self._sizes.express(pair) for pair in pairs])


def _side_by_side(storages: Sequence[Storage], small: Sequence[Storage]) -> dict[int, Storage]:
    """The like of each at the small sizes, or itself: a copy that sizes of 1 make needless has none."""
    keys = [[(each.region, len(each.shape)) for each in side] for side in (storages, small)]
    found = {storage.number: storage for storage in storages}
    for block in SequenceMatcher(None, *keys, autojunk=False).get_matching_blocks():
        for n in range(block.size):
            found[storages[block.a + n].number] = small[block.b + n]
    return found


def scaled(formula: Formula, factor: int) -> Formula:
    return Formula(Mul(Integer(factor), formula.expression, evaluate=False), formula.values)


def lines_of(program: Program, symbols: Iterable[str]) -> list[str]:
    """Where the plan says what these symbols are: `examples/30b_moe.plan:7  mesh { pp = 4 ... }`, each line once."""
    plan = program.plan
    found: dict[str, None] = {}
    for symbol in symbols:
        for block in ("mesh.", "model.", "model.experts.", "shard.", "schedule.", "train.", ""):
            path = f"{block}{symbol}"
            place = plan.places.get(path)
            if place is not None:
                number = place.source.text.count("\n", 0, place.span.start) + 1
                line = place.source.text.splitlines()[number - 1].strip()
                found[f"{place.source.path}:{number}  {line}"] = None
    return list(found)

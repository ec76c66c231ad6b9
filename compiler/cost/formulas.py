"""Figures as formulas over the plan's symbols: sizes of the model, and sizes of axes under their names."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from math import prod

from sympy import Add, Expr, Integer, Mul, Symbol, ceiling

from moec.compiler.cost.dry_run import Kept, Rank, dry_run
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


def kept_activations(program: Program, rank: Rank) -> list[tuple[Kept, Formula]]:
    """What a micro-batch keeps on one stage, each tensor's bytes as a formula over the names of the emitted text.

    The text is run a second time at the small sizes, and what both sizes have in common is the formula.
    """
    small = dry_run(program, sizing=SMALL)[rank.stage]
    both = Sizes(
        tuple({name: sizes[name] for name in rank.sizes if name in small.sizes} for sizes in (rank.sizes, small.sizes))
    )
    found = []
    for full, little in _side_by_side(rank.kept, small.kept):
        dims = [both.express(pair) for pair in zip(full.shape, little.shape, strict=True)]
        values = {name: float(size) for name, size in rank.sizes.items()}
        values |= {str(symbol): float(pair[0]) for symbol, pair in both.opaque.items()}
        found.append((full, Formula(Mul(Integer(full.itemsize), *dims), values)))
    return _joined(found)


def _side_by_side(kept: Sequence[Kept], small: Sequence[Kept]) -> list[tuple[Kept, Kept]]:
    """Each with its like at the small sizes, or with itself: a copy that sizes of 1 make needless has none."""
    keys = [[(each.region, len(each.shape)) for each in side] for side in (kept, small)]
    found = list(zip(kept, kept, strict=True))
    for block in SequenceMatcher(None, *keys, autojunk=False).get_matching_blocks():
        for n in range(block.size):
            found[block.a + n] = kept[block.a + n], small[block.b + n]
    return found


def _joined(found: Sequence[tuple[Kept, Formula]]) -> list[tuple[Kept, Formula]]:
    """Those of one loop and region with one formula are one."""
    joined: dict[tuple[str, str, Expr], tuple[Kept, Formula, int]] = {}
    for kept, formula in found:
        key = kept.loop, kept.region, formula.expression
        count = joined[key][2] + 1 if key in joined else 1
        joined[key] = kept, formula, count
    return [(kept, replace(f, expression=Mul(Integer(count), f.expression))) for kept, f, count in joined.values()]


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

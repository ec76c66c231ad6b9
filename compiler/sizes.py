"""Sizes as symbols: a literal seen at two sets of probe sizes becomes a formula over the plan's symbols.

Every symbol takes, in each probe, a value that shares no factor with another, so a literal is usually one product of
symbols, found uniquely; the same literal in both probes is a constant; what is neither becomes an opaque symbol, whose
value at other sizes is read off a trace at those sizes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations_with_replacement

import sympy
from sympy import Expr, Integer, Rational, Symbol

Sizing = Mapping[str, int]
"""A value for every symbol."""

DEGREE = 4
SMALL = 64


@dataclass
class Sizes:
    """The symbols of one plan with their values in the probes, and the formulas found so far."""

    probes: tuple[Sizing, ...]
    opaque: dict[Symbol, tuple[int | float, ...]] = field(default_factory=dict)
    _products: list[tuple[tuple[str, ...], tuple[int, ...]]] = field(default_factory=list)
    _found: dict[tuple[int | float, ...], Expr] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = tuple(self.probes[0])
        for degree in range(1, DEGREE + 1):
            for product in combinations_with_replacement(names, degree):
                values = [1] * len(self.probes)
                for name in product:
                    values = [value * probe[name] for value, probe in zip(values, self.probes, strict=True)]
                self._products.append((product, tuple(values)))

    def express(self, values: tuple[int | float, ...]) -> Expr:
        """The formula of a literal that has these values in the probes."""
        if values not in self._found:
            self._found[values] = self._search(values)
        return self._found[values]

    def _search(self, values: tuple[int | float, ...]) -> Expr:
        if len(set(values)) == 1:
            return sympy.sympify(values[0])
        if all(isinstance(value, int) for value in values):
            for offset in (0, 1, -1, 2, -2):
                shifted = tuple(int(value) - offset for value in values)
                product = self._product(shifted)
                if product is not None:
                    return product + offset
        name = f"constant_{len(self.opaque)}"
        symbol = Symbol(name, positive=True)
        self.opaque[symbol] = values
        return symbol

    def _product(self, values: tuple[int, ...]) -> Expr | None:
        best: tuple[tuple[int, int, int], Expr] | None = None
        if any(value <= 0 for value in values):
            return None
        for product, worth in self._products:
            ratio = Fraction(values[0], worth[0])
            if ratio.numerator > SMALL or ratio.denominator > SMALL:
                continue
            if any(Fraction(value, w) != ratio for value, w in zip(values[1:], worth[1:], strict=True)):
                continue
            cost = (ratio.denominator, ratio.numerator, len(product))
            if best is None or cost < best[0]:
                factors = [size_symbol(name) for name in product]
                best = cost, Rational(ratio.numerator, ratio.denominator) * sympy.Mul(*factors)
        return None if best is None else best[1]


def size_symbol(name: str) -> Symbol:
    return Symbol(name, positive=True, integer=True)


def evaluate(formula: Expr, sizing: Mapping[Symbol, int | float]) -> int | float:
    """The number that a formula is at these sizes."""
    value = formula.xreplace({symbol: sympy.sympify(number) for symbol, number in sizing.items()})
    assert not value.free_symbols, f"{formula} has no value: {value.free_symbols} unknown"
    return int(value) if value.is_integer else float(value)


ONE = Integer(1)

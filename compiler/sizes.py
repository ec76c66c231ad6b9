"""Sizes as symbols: a literal seen at two sizings of the model becomes a formula over the plan's symbols.

The two sizings are the plan's own and the small one that `verify` runs, so a formula that holds in both is right in
every program that is emitted. A literal that is the same in both is a constant; one that differs is a product of
symbols with the fewest factors; what is no product becomes a named constant, opaque, with its value in each sizing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations_with_replacement

import sympy
from sympy import Expr, Integer, Number, Rational, Symbol

from moec.compiler.unique import unique

Sizing = Mapping[str, int]
"""A value for every symbol."""

DEGREE = 3
SMALL = 64


@dataclass
class Sizes:
    """The symbols of one plan with their values in each sizing, and the formulas found so far."""

    sizings: tuple[Sizing, ...]
    opaque: dict[Symbol, tuple[int | float, ...]] = field(default_factory=dict)
    _products: list[tuple[tuple[str, ...], tuple[int, ...]]] = field(default_factory=list)
    _found: dict[tuple[int | float, ...], Expr] = field(default_factory=dict)
    _values: dict[tuple[Expr, int], int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = tuple(self.sizings[0])
        for degree in range(1, DEGREE + 1):
            for product in combinations_with_replacement(names, degree):
                values = [1] * len(self.sizings)
                for name in product:
                    values = [value * sizing[name] for value, sizing in zip(values, self.sizings, strict=True)]
                self._products.append((product, tuple(values)))

    def express(self, values: tuple[int | float, ...], name: str = "size") -> Expr:
        """The formula of a literal with these values in the sizings; an opaque one is named after `name`."""
        key = (*values, *(type(value) is float for value in values))
        if key not in self._found:
            self._found[key] = self._search(values, name)
        return self._found[key]

    def value(self, formula: Expr | int, sizing: int) -> int | float:
        """The number that a formula is in one of the sizings."""
        if isinstance(formula, int):
            return formula
        if (formula, sizing) not in self._values:
            numbers = {_symbol(name): size for name, size in self.sizings[sizing].items()}
            numbers |= {symbol: values[sizing] for symbol, values in self.opaque.items()}
            value = formula.subs(
                {symbol: number for symbol, number in numbers.items() if symbol in formula.free_symbols}
            )
            assert isinstance(value, Number), f"{formula} has no value"
            self._values[formula, sizing] = int(value) if isinstance(value, Integer) else float(value)
        return self._values[formula, sizing]

    def _search(self, values: tuple[int | float, ...], name: str) -> Expr:
        if len(set(values)) == 1:
            return sympy.sympify(values[0])
        if all(isinstance(value, int) for value in values):
            for offset in (0, 1, -1):
                product = self._product(tuple(int(value) - offset for value in values))
                if product is not None:
                    return product + offset
        taken = {symbol.name for symbol in self.opaque} | set(self.sizings[0])
        symbol = Symbol(
            unique(name, taken), positive=True, integer=all(isinstance(value, int) for value in values) or None
        )
        self.opaque[symbol] = values
        return symbol

    def _product(self, values: tuple[int, ...]) -> Expr | None:
        """The cheapest of the products, times a small ratio, that have these values."""
        best: tuple[tuple[int, int, int], Expr] | None = None
        if any(value <= 0 for value in values):
            return None
        for product, worth in self._products:
            ratio = Fraction(values[0], worth[0])
            if ratio.numerator > SMALL or ratio.denominator > SMALL:
                continue
            if any(value * worth[0] * ratio.denominator != w * ratio.numerator * worth[0]
                   for value, w in zip(values[1:], worth[1:], strict=True)):  # fmt: skip
                continue
            cost = (ratio.denominator * ratio.numerator, len(product), -ratio.numerator)
            if best is None or cost < best[0]:
                factors = [_symbol(name) for name in product]
                best = cost, Rational(ratio.numerator, ratio.denominator) * sympy.Mul(*factors)
        return None if best is None else best[1]


def _symbol(name: str) -> Symbol:
    return Symbol(name, positive=True, integer=True)

"""The header of sizes: every size of the emitted text is a name, or a product of names, that stands in it.

`HIDDEN` is a size of the whole, `LOCAL_HEADS` a rank's part of one that is split as the plan says, `BATCH_PER_DP` a
part that is split otherwise. Only the header has numbers, so that one text serves the plan's sizes and small ones.
"""

from dataclasses import dataclass, field
from fractions import Fraction

from sympy import Add, Expr, Integer, Mul, Number, Pow, Rational, Symbol

from moec.compiler.placement import Axes
from moec.compiler.program import Program, Value

RESERVED = frozenset("F DTYPE FLOAT WEIGHTS STACKED UNITS INPUTS ACTIVATIONS_IN GRADIENTS_IN".split())
"""What else is in capitals in the files of stages and sizes."""


@dataclass(slots=True)
class SizeNames:
    """Names that the emitted text has used so far, and what they stand for."""

    program: Program
    whole: dict[str, Expr] = field(default_factory=dict)  # name -> formula
    parts: dict[str, tuple[Expr, Axes]] = field(default_factory=dict)  # name -> formula, split over axes
    _of_part: dict[tuple[Expr, Axes], str] = field(default_factory=dict)

    def text(self, size: Expr | int | float) -> str:
        """A size of the whole, as an expression in names."""
        if isinstance(size, int | float):
            return repr(size)
        if isinstance(size, Integer):
            return str(int(size))
        if isinstance(size, Symbol):
            name = self._name(size.name)
            self.whole[name] = size
            return name
        if isinstance(size, Add):
            terms = sorted(size.args, key=lambda term: isinstance(term, Number))
            return " + ".join(self.text(term) for term in terms).replace("+ -", "- ")
        return self._product(size, lambda symbol: self.text(symbol))

    def part(self, size: Expr, axes: Axes, dim: str | None = None) -> str:
        """A rank's part of a size that is split over axes; `dim` is the logical dim, whose own size is split."""
        if not axes or size == 1:
            return self.text(size)
        split = self._split_symbol(size, axes, dim)
        if split is None:
            return self._part_name(size, axes, "SIZE")
        return self._product(
            size, lambda symbol: self._part_name(symbol, axes, "") if symbol == split else self.text(symbol)
        )

    @property
    def _symbols(self) -> list[str]:
        return list(self.program.sizes.sizings[0])

    def _name(self, symbol: str) -> str:
        """In capitals, and like nothing else that stands in capitals in emitted text."""
        name = symbol.upper()
        rivals = [other for other in self._symbols if other.upper() == name]
        name += "_" * (rivals.index(symbol) if symbol in rivals else 0)
        return f"{name}_" if name in RESERVED else name

    def shape(self, value: Value) -> tuple[str, ...]:
        """The shape of a rank's part of a value."""
        return tuple(
            self.part(size, axes, dim)
            for size, axes, dim in zip(value.shape, value.placement.split, value.dims, strict=True)
        )

    def header(self, sizing: int) -> list[str]:
        """Assignments of all names used, those of the whole first."""
        lines = [
            f"{name} = {self.program.sizes.value(formula, sizing)!r}"
            for name, formula in sorted(self.whole.items(), key=lambda item: self._rank(item[1]))
        ]
        for name, (formula, axes) in sorted(self.parts.items()):
            over = " and ".join(self.program.plan.mesh.name((axis,)) for axis in axes)
            whole = self.program.sizes.value(formula, sizing)
            lines.append(f"{name} = {self.program.local_size(formula, axes, sizing)}  # of {whole}, split over {over}")
        return lines

    def _rank(self, symbol: Expr) -> tuple[int, str]:
        """The plan's symbols come in the model's order, then the opaque ones."""
        order, name = list(self.program.sizes.sizings[0]), str(symbol)
        return (order.index(name) if name in order else len(order), name)

    def _product(self, size: Expr, show) -> str:
        coefficient, factors = Rational(1), []
        for factor in Mul.make_args(size):
            if isinstance(factor, Rational):
                coefficient *= factor
            elif isinstance(factor, Pow) and factor.exp == -1:
                factors.append((1, factor.base))
            elif isinstance(factor, Pow) and isinstance(factor.exp, Integer):
                factors += [(0, factor.base)] * int(factor.exp)
            else:
                factors.append((0, factor))
        above = [show(f) for down, f in sorted(factors, key=lambda pair: self._rank(pair[1])) if not down]
        below = [show(f) for down, f in factors if down]
        ratio = Fraction(str(coefficient))
        text = " * ".join(([str(ratio.numerator)] if ratio.numerator != 1 or not above else []) + above)
        for divisor in ([str(ratio.denominator)] if ratio.denominator != 1 else []) + below:
            text += f" // {divisor}"
        return text

    def _split_symbol(self, size: Expr, axes: Axes, dim: str | None) -> Symbol | None:
        """The factor of a product that is divided: the one called like the dim, or the first that divides."""
        if isinstance(size, Symbol):
            return size
        parts = self.program.plan.mesh.size(axes)
        symbols = sorted((f for f in Mul.make_args(size) if isinstance(f, Symbol)), key=self._rank)
        symbols.sort(key=lambda symbol: symbol.name != dim)
        fits = (s for s in symbols if all(self.program.sizes.value(s, n) % parts == 0 for n in (0, 1)))
        return next(fits, None)

    def _part_name(self, size: Expr, axes: Axes, base: str) -> str:
        if (size, axes) not in self._of_part:
            stem = size.name.upper() if isinstance(size, Symbol) else base
            names = [f"LOCAL_{stem}", f"{stem}_PER_{self.program.plan.mesh.name(axes).upper()}"]
            names += [f"LOCAL_{stem}_{n}" for n in range(2, 100)]
            wholes = {symbol.upper() for symbol in self._symbols}
            name = next(name for name in names if name not in self.parts and name not in wholes)
            self.parts[name] = size, axes
            self._of_part[size, axes] = name
        return self._of_part[size, axes]

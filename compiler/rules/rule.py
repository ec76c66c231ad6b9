"""What a rule says: which dims of an operator's inputs and outputs are one, and in which inputs it is linear.

A rule is a line of text in the manner of an einsum. `... k, n k -> ... n` says that the last dim of the first input and
the second of the second are summed over, so that both may be split and the result is then a partial sum; `_` is a dim
that must be whole; `...` are the other dims, aligned at the right. Linearity is a sum of products of inputs by number:
`0*1 + 2` is linear in 0 and in 1, with 2 added.
"""

from dataclasses import dataclass

from moec.compiler.program import Op, Value
from moec.compiler.sizes import Sizes

Factors = tuple[str | None, ...]
"""For every dim of a tensor the factor it belongs to; None must be whole."""

Terms = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """Factors of each input and output, and the sum of products of inputs that the operator is (none: not linear)."""

    inputs: tuple[Factors, ...]
    outputs: tuple[Factors, ...]
    terms: Terms = ()

    @property
    def contracted(self) -> set[str]:
        """Factors that are summed over."""
        left = {factor for factors in self.outputs for factor in factors}
        return {factor for factors in self.inputs for factor in factors if factor is not None and factor not in left}


@dataclass(frozen=True, slots=True)
class Seen:
    """An operator with its tensors, as a rule looks at it."""

    op: Op
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    sizes: Sizes

    def argument(self, place: int, name: str, default: object = None) -> object:
        """An argument that may be given by place or by name."""
        if place < len(self.op.args):
            return self.op.args[place]
        return dict(self.op.kwargs).get(name, default)

    def integer(self, place: int, name: str, default: int) -> int:
        value = self.argument(place, name, default)
        return value if isinstance(value, int) else default

    def dims(self, place: int, name: str, rank: int) -> set[int]:
        """Dims given as a number or a list, counted from 0; all of them if none is given."""
        value = self.argument(place, name, None)
        listed = value if isinstance(value, tuple) else () if value is None else (value,)
        found = {dim % max(rank, 1) for dim in listed if type(dim) is int}
        return found or set(range(rank))

    def numbers(self, value: Value) -> tuple[int, ...]:
        """A shape at odd sizes, where equal numbers are equal dims."""
        last = len(self.sizes.sizings) - 1
        return tuple(int(self.sizes.value(size, last)) for size in value.shape)


def read_rule(text: str, linear: str, seen: Seen) -> Rule:
    """A rule from its text, for the ranks of these tensors; inputs that are not given are left out of the text."""
    left, right = (side.split(",") for side in text.split("->"))
    inputs = [part.split() for part in left[: len(seen.inputs)]]
    outputs = [part.split() for part in right]
    given = [_expanded(part, len(value.shape)) for part, value in zip(inputs, seen.inputs, strict=True)]
    made = [_expanded(part, len(value.shape)) for part, value in zip(outputs, seen.outputs, strict=True)]
    return Rule(tuple(given), tuple(made), read_terms(linear, len(seen.inputs)))


def read_terms(linear: str, inputs: int) -> Terms:
    """`0*1 + 2` as ((0, 1), (2,)), without inputs that are not there."""
    terms = [tuple(int(number) for number in term.split("*")) for term in linear.split("+")] if linear else []
    return tuple(term for term in terms if all(number < inputs for number in term))


def _expanded(part: list[str], rank: int) -> Factors:
    if "..." in part:
        place = part.index("...")
        missing = rank - len(part) + 1
        part = [*part[:place], *(f".{missing - n}" for n in range(missing)), *part[place + 1 :]]
    assert len(part) == rank, f"a rule for {len(part)} dims, and the tensor has {rank}"
    return tuple(None if name == "_" else name for name in part)

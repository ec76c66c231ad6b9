"""The syntax tree of a plan: one class for each form of the grammar, each with its place in the text.

Two trees are equal if they say the same, wherever it stands.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from moec.dsl.source import Place, Source


@dataclass(frozen=True, slots=True)
class Word:
    """A name."""

    text: str
    place: Place = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Number:
    """A literal with its unit, as written."""

    text: str = field(compare=False)
    place: Place = field(compare=False, repr=False)
    spelling: str = field(init=False, repr=False)
    """The same without spaces: `64 GiB` is `64GiB`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "spelling", "".join(self.text.split()))


@dataclass(frozen=True, slots=True)
class Negative:
    """`-x`, or `+x`."""

    sign: str
    operand: "Expression"
    place: Place = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """A sum or a product of any length: `first`, then signs and operands."""

    first: "Expression"
    rest: "tuple[tuple[str, Expression], ...]"
    place: Place = field(compare=False, repr=False)


Expression: TypeAlias = Word | Number | Negative | Chain


@dataclass(frozen=True, slots=True)
class Text:
    """A string, without its quotes."""

    value: str
    place: Place = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Texts:
    """`"one", "another"`: several strings."""

    items: tuple[Text, ...]
    place: Place = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Python:
    """`python "module:name"`."""

    target: Text
    place: Place = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Fold:
    """`size over axis, axis`."""

    size: Expression
    over: tuple[Word, ...]
    place: Place = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Dims:
    """`[dim, dim]`."""

    items: tuple[Expression, ...]
    place: Place = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Tensor:
    """`kind[dim, dim] < below`."""

    kind: Word
    dims: Dims
    below: Expression | None
    place: Place = field(compare=False, repr=False)


Value: TypeAlias = Expression | Text | Texts | Python | Fold | Tensor


@dataclass(frozen=True, slots=True)
class Setting:
    """`name = value`."""

    name: Word
    value: Value
    place: Place = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Bound:
    """`name < value`."""

    name: Word
    relation: str
    value: Expression
    place: Place = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Line:
    """`dim, dim over axis, axis`, or `dim whole`."""

    dims: tuple[Word, ...]
    axes: tuple[Word, ...]
    place: Place = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Naming:
    """`"pattern" [dim, dim]`."""

    pattern: Text
    dims: Dims
    place: Place = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Block:
    """`kind title = python "module:name" { items }`; its place is what stands before the bracket."""

    kind: Word
    title: Word | None
    python: Python | None
    items: "tuple[Item, ...]"
    place: Place = field(compare=False, repr=False)


Item: TypeAlias = Setting | Bound | Line | Naming | Block


@dataclass(frozen=True, slots=True)
class Binding:
    """`let name = value`."""

    name: Word
    value: Expression
    place: Place = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Document:
    """A whole plan as written."""

    source: Source = field(compare=False)
    bindings: tuple[Binding, ...]
    blocks: tuple[Block, ...]

"""Prints the items of a plan, each in one way: as pieces between which a line may be broken."""

import re
from typing import assert_never

from moec.dsl.syntax import (
    Binding,
    Block,
    Bound,
    Chain,
    Dims,
    Expression,
    Fold,
    Line,
    Naming,
    Negative,
    Number,
    Python,
    Setting,
    Tensor,
    Text,
    Texts,
    Value,
    Word,
)
from moec.dsl.units import UNITS

Pieces = list[str]
"""Printed with a space between them, or with a line break."""

_UNIT = re.compile(r"(?P<digits>\d(?:[eE][+-]?\d|[\d_.])*)[ \t]*(?P<unit>[A-Za-z/%]+)")


def print_header(block: Block) -> str:
    """What stands before the bracket of a block."""
    title = f" {block.title.text}" if block.title else ""
    python = f" = {print_python(block.python)}" if block.python else ""
    return f"{block.kind.text}{title}{python}"


def print_part(part: Binding | Setting | Bound | Line | Naming) -> Pieces:
    """The whole of an item that is no block."""
    match part:
        case Binding():
            return _after(f"let {part.name.text} =", print_expression(part.value))
        case Line():
            return [*_listed(part.dims), *print_rest(part)]
        case _:
            return _after(" ".join(print_columns(part)), print_rest(part))


def print_columns(item: Setting | Bound | Line | Naming) -> tuple[str, ...]:
    """What stands left of the value and is aligned in a list of such items: `name`, sign."""
    match item:
        case Setting():
            return item.name.text, "="
        case Bound():
            return item.name.text, item.relation
        case Line():
            return (", ".join(dim.text for dim in item.dims),)
        case Naming():
            return (item.pattern.place.text,)
        case _:
            assert_never(item)


def print_rest(item: Setting | Bound | Line | Naming) -> Pieces:
    """What stands right of these columns."""
    match item:
        case Setting():
            return print_value(item.value)
        case Bound():
            return print_expression(item.value)
        case Line():
            return _over(item.axes) if item.axes else ["whole"]
        case Naming():
            return _dims(item.dims)
        case _:
            assert_never(item)


def print_value(value: Value) -> Pieces:
    match value:
        case Text():
            return [value.place.text]
        case Texts():
            *others, last = [text.place.text for text in value.items]
            return [*(f"{text}," for text in others), last]
        case Python():
            return [print_python(value)]
        case Fold():
            return [*_expression(value.size, spaced=False), *_over(value.over)]
        case Tensor():
            below = _after("<", print_expression(value.below)) if value.below else []
            first, *rest = _dims(value.dims)
            return [f"{value.kind.text}{first}", *rest, *below]
        case _:
            return print_expression(value)


def print_python(python: Python) -> str:
    return f"python {python.target.place.text}"


def print_expression(expression: Expression) -> Pieces:
    """Brackets only where the tree needs them."""
    return _expression(expression, spaced=True)


def _expression(expression: Expression, spaced: bool) -> Pieces:
    """Where not `spaced`, a number with a unit stands in brackets: before `,` or `over` the unit would be a word."""
    match expression:
        case Word():
            return [expression.text]
        case Number():
            text = _spaced(expression)
            return [f"({text})" if " " in text and not spaced else text]
        case Negative():
            operand = expression.operand
            inner = _expression(operand, spaced)
            first, *rest = _bracketed(inner) if isinstance(operand, Chain | Negative) else inner
            return [f"{expression.sign}{first}", *rest]
        case Chain():
            pieces = _operand(expression.first, expression, spaced)
            for sign, operand in expression.rest:
                pieces += _after(sign, _operand(operand, expression, spaced))
            return pieces
        case _:
            assert_never(expression)


def _spaced(number: Number) -> str:
    """A literal with one space before its unit."""
    unit = _UNIT.fullmatch(number.text)
    return f"{unit['digits']} {unit['unit']}" if unit and unit["unit"] in UNITS else " ".join(number.text.split())


def _operand(operand: Expression, chain: Chain, spaced: bool) -> Pieces:
    """In brackets, but for a product in a sum."""
    inner = _expression(operand, spaced)
    product = isinstance(operand, Chain) and operand.rest[0][0] in "*/" and chain.rest[0][0] in "+-"
    return _bracketed(inner) if isinstance(operand, Chain) and not product else inner


def _bracketed(pieces: Pieces) -> Pieces:
    return _ended([f"({pieces[0]}", *pieces[1:]], ")")


def _after(start: str, pieces: Pieces) -> Pieces:
    return [f"{start} {pieces[0]}", *pieces[1:]]


def _ended(pieces: Pieces, end: str) -> Pieces:
    return [*pieces[:-1], f"{pieces[-1]}{end}"]


def _over(axes: tuple[Word, ...]) -> Pieces:
    return _after("over", _listed(axes))


def _listed(words: tuple[Word, ...]) -> Pieces:
    return [*(f"{word.text}," for word in words[:-1]), words[-1].text]


def _dims(dims: Dims) -> Pieces:
    items = [_expression(item, spaced=False) for item in dims.items]
    pieces = [piece for item in items[:-1] for piece in _ended(item, ",")] + (items[-1] if items else [""])
    return _ended([f"[{pieces[0]}", *pieces[1:]], "]")

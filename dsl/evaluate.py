"""Works arithmetic out exactly: names and numbers to one quantity."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from moec.dsl.report import Report
from moec.dsl.source import Place
from moec.dsl.suggest import did_you_mean, nearest
from moec.dsl.syntax import Chain, Expression, Negative, Number, Word
from moec.dsl.units import UNITS, Misspelt, Quantity, read_literal, unit_name

MOST_BITS = 4096
"""Of the exact numerator or denominator of any result."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a plan binds with `let`: what they are worth (None if that failed), and each whole binding."""

    values: Mapping[str, Quantity | None]
    places: Mapping[str, Place]


def evaluate(expression: Expression, names: Names, report: Report) -> Quantity | None:
    """The value of an expression; None, with the fault reported, where it has none."""
    match expression:
        case Number():
            return _number(expression, report)
        case Word():
            return _name(expression, names, report)
        case Negative():
            operand = evaluate(expression.operand, names, report)
            if operand is None or expression.sign == "+":
                return operand
            return Quantity(-operand.value, operand.unit, operand.real)
        case Chain():
            return _chain(expression, names, report)
        case _:
            assert_never(expression)


def _number(number: Number, report: Report) -> Quantity | None:
    quantity = read_literal(number.text)
    if isinstance(quantity, Quantity):
        return quantity
    _report_misspelt(number, quantity, report)
    return None


def _report_misspelt(number: Number, fault: Misspelt, report: Report) -> None:
    if fault.unit is None:
        headline = f"`{number.text}` is not a number that a plan can hold"
        report.error("E104", headline, number.place.label(fault.reason), help=fault.help)
        return
    help = did_you_mean(fault.unit, UNITS, "units")
    report.error("E109", f"`{fault.unit}` is not a unit", number.place.label("in this number"), help=help)


def _name(word: Word, names: Names, report: Report) -> Quantity | None:
    bound = names.places.get(word.text)
    if (
        word.text in names.values
        and bound
        and bound.source == word.place.source
        and bound.span.end > word.place.span.start
    ):
        headline = f"`{word.text}` is used before it is bound"
        help = ["move the `let` up, before its first use"]
        report.error("E106", headline, word.place.label("used here"), bound.note("bound here"), help=help)
        return None
    if word.text in names.values:
        return names.values[word.text]
    if word.text.lower() in ("nan", "inf", "infinity"):
        headline = f"`{word.text}` is not a number that a plan can hold"
        report.error("E104", headline, word.place.label("no number"), help=["write one in digits"])
        return None
    help = did_you_mean(word.text, names.values, "names that are bound") if nearest(word.text, names.values) else ()
    help = help or (f"bind it before it is used: `let {word.text} = 1`",)
    report.error("E106", f"no `let` binds the name `{word.text}`", word.place.label("unknown name"), help=help)
    return None


def _chain(chain: Chain, names: Names, report: Report) -> Quantity | None:
    """Left to right; the first operand that fails ends it."""
    result = evaluate(chain.first, names, report)
    for sign, operand in chain.rest:
        right = evaluate(operand, names, report)
        if result is None or right is None:
            return None
        result = _combine(result, sign, right, operand, report)
    return result


def _combine(left: Quantity, sign: str, right: Quantity, operand: Expression, report: Report) -> Quantity | None:
    """One step of arithmetic; `operand` is where the right side was written."""
    result = _apply(left, sign, right)
    if isinstance(result, str):
        help = ["divide by another number"] if right.value == 0 else ["give both sides one unit"]
        report.error("E105", f"`{sign}` has no result here", operand.place.label(result), help=help)
        return None
    if max(result.value.numerator.bit_length(), result.value.denominator.bit_length()) > MOST_BITS:
        label = operand.place.label(f"over {MOST_BITS} bits")
        report.error("E105", "a result is too long to be kept exactly", label, help=["round what it is made of"])
        return None
    return result


def _apply(left: Quantity, sign: str, right: Quantity) -> Quantity | str:
    real = left.real or right.real
    if sign in "+-":
        if left.unit != right.unit:
            return f"units differ: {unit_name(left.unit)} on the left, {unit_name(right.unit)} here"
        return Quantity(left.value + right.value * (1 if sign == "+" else -1), left.unit, real)
    if sign == "*":
        return Quantity(left.value * right.value, _add(left.unit, right.unit, 1), real)
    if right.value == 0:
        return "division by zero"
    value = left.value / right.value
    return Quantity(value, _add(left.unit, right.unit, -1), real or value.denominator > 1)


def _add(left: tuple[int, int, int, int], right: tuple[int, int, int, int], factor: int) -> tuple[int, int, int, int]:
    a, b, c, d = (x + factor * y for x, y in zip(left, right, strict=True))
    return a, b, c, d

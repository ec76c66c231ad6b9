"""Quantities: exact numbers with a unit, and how a literal reads as one."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

Unit: TypeAlias = tuple[int, int, int, int]
"""Exponents of byte, second, FLOP and token."""

PLAIN: Unit = (0, 0, 0, 0)
BYTES: Unit = (1, 0, 0, 0)
SECONDS: Unit = (0, 1, 0, 0)
FLOP_RATE: Unit = (0, -1, 1, 0)
BYTE_RATE: Unit = (1, -1, 0, 0)
TOKEN_RATE: Unit = (0, -1, 0, 1)

UNITS: dict[str, tuple[Fraction, Unit]] = {
    "%": (Fraction(1, 100), PLAIN),
    "s": (Fraction(1), SECONDS),
    "ms": (Fraction(1, 10**3), SECONDS),
    "us": (Fraction(1, 10**6), SECONDS),
    "tokens/s": (Fraction(1), TOKEN_RATE),
    "GFLOP/s": (Fraction(10**9), FLOP_RATE),
    "TFLOP/s": (Fraction(10**12), FLOP_RATE),
    "PFLOP/s": (Fraction(10**15), FLOP_RATE),
    "B": (Fraction(1), BYTES),
    "B/s": (Fraction(1), BYTE_RATE),
}
for _power, _letter in enumerate("KMGT", start=1):
    UNITS[f"{_letter}B"] = (Fraction(1000**_power), BYTES)
    UNITS[f"{_letter}iB"] = (Fraction(1024**_power), BYTES)
    UNITS[f"{_letter}B/s"] = (Fraction(1000**_power), BYTE_RATE)
    UNITS[f"{_letter}iB/s"] = (Fraction(1024**_power), BYTE_RATE)

EXAMPLES: dict[Unit, str] = {
    PLAIN: "a plain number",
    BYTES: "an amount of memory, such as `64 GiB`",
    SECONDS: "a time, such as `50 ms`",
    FLOP_RATE: "a rate of computing, such as `989 TFLOP/s`",
    BYTE_RATE: "a bandwidth, such as `450 GB/s`",
    TOKEN_RATE: "a rate of tokens, such as `20_000 tokens/s`",
}

MOST_EXPONENT = 308
_LITERAL = re.compile(
    r"(?P<whole>\d+(?:_\d+)*)(?P<rest>(?:\.\d+(?:_\d+)*)?(?:[eE](?P<exponent>[+-]?\d+))?)[ \t]*(?P<unit>[A-Za-z/%]*)"
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact value in base units; `real` if it was written with a point or an exponent, or divided."""

    value: Fraction
    unit: Unit = PLAIN
    real: bool = False


@dataclass(frozen=True, slots=True)
class Misspelt:
    """Why a literal is no quantity, and what to write."""

    reason: str
    help: tuple[str, ...] = ()
    unit: str | None = None
    """The unknown unit, if that is the reason."""


def read_literal(text: str) -> Quantity | Misspelt:
    """The quantity that a literal such as `32_000`, `1.1` or `64 GiB` stands for, exactly."""
    match = _LITERAL.fullmatch(text)
    if not match:
        return Misspelt("not a number", ("numbers are written like `32_000`, `1.1`, `3e-4` or `64 GiB`",))
    digits = match["whole"] + match["rest"]
    if len(match["whole"]) > 1 and digits[0] == "0":
        return Misspelt("starts with a zero", (f"write `{text.lstrip('0_') or '0'}`",))
    if (
        len(digits) > MOST_EXPONENT
        or len(match["exponent"] or "") > 5
        or abs(int(match["exponent"] or 0)) > MOST_EXPONENT
    ):
        reason = f"beyond 1e{MOST_EXPONENT} or 1e-{MOST_EXPONENT}, or longer than {MOST_EXPONENT} digits"
        return Misspelt(reason, ("write one that is within these",))
    unit = match["unit"]
    if unit and unit not in UNITS:
        return Misspelt(f"`{unit}` is not a unit", unit=unit)
    scale, dimension = UNITS.get(unit, (Fraction(1), PLAIN))
    return Quantity(Fraction(digits.replace("_", "")) * scale, dimension, bool(match["rest"]))


def unit_name(unit: Unit) -> str:
    """A unit as people write it: `B/s`, or `1` for a plain number."""
    names = ("B", "s", "FLOP", "tokens")
    above = "*".join(
        f"{name}^{power}" if power > 1 else name for name, power in zip(names, unit, strict=True) if power > 0
    )
    below = "/".join(
        f"{name}^{-power}" if power < -1 else name for name, power in zip(names, unit, strict=True) if power < 0
    )
    return f"{above or '1'}/{below}" if below else above or "1"

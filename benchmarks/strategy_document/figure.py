"""A number with a name, as it is printed and as the page shows it."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`text` is the number with its unit, or a verdict that follows from numbers."""

    name: str
    text: str


def figures(**texts: str) -> list[Figure]:
    return [Figure(name, text) for name, text in texts.items()]


def texts(found: Iterable[Figure]) -> dict[str, str]:
    return {each.name: each.text for each in found}


def verdict(holds: bool, otherwise: str = "does not hold") -> str:
    return "holds" if holds else otherwise


def milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


def gigabytes(size: float) -> str:
    """Of 1e9 bytes, as the document counts."""
    return f"{size / 1e9:.3g} GB"


def teraflops(flops: float) -> str:
    return f"{flops / 1e12:,.0f} TFLOP"


def percent(share: float) -> str:
    return f"{100 * share:.3g} %" if abs(share) > 1e-6 else "0 %"

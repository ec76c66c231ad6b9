"""Numbers as one reads them beside an axis."""

from collections.abc import Callable
from dataclasses import dataclass

_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


@dataclass(frozen=True, slots=True)
class Amount:
    """A kind of number: how one is written, and in what numbers up to some greatest one are counted."""

    text: Callable[[float], str]
    unit: Callable[[float], float] = lambda _: 1.0


def _plain(value: float) -> str:
    """`0.00012`, `3.5`, `12 k`."""
    for unit, letter in _LARGE:
        if abs(value) >= unit:
            return f"{value / unit:.4g} {letter}"
    return f"{value:.4g}"


def _size(value: float) -> str:
    unit = _unit_of_size(value)
    return f"{value / unit:.4g} {dict(_BYTES)[unit]}"


def _unit_of_size(value: float) -> int:
    return next((unit for unit, _ in _BYTES if abs(value) >= unit), 1)


def _seconds(value: float) -> str:
    if abs(value) >= 1 or value == 0:
        return f"{value:.4g} s"
    return f"{value * 1e3:.4g} ms" if abs(value) >= 1e-3 else f"{value * 1e6:.4g} us"


def share(value: float) -> str:
    return f"{100 * value:.4g} %"


PLAIN, SECONDS, SHARE = Amount(_plain), Amount(_seconds), Amount(share)
BYTES = Amount(_size, _unit_of_size)

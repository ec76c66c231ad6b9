"""Reads how many rows each expert of each layer got: the metrics of a run, or a list."""

import json
from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import isfinite
from pathlib import Path
from sys import float_info

from moec.dsl.plain_file import plain_file

_MOST = int(float_info.max)
"""Rows of an expert."""

_MOST_SHOWN = 30
"""Letters of a value that a message quotes."""


class Unreadable(Exception):
    """Why a file holds no rows of experts."""


def read_loads(path: Path, experts: int | None) -> tuple[tuple[float, ...], ...]:
    """The shares of the experts of every layer, summed over the file's lines; None: of any number of experts.

    A line is one JSON value: a list of the rows that each expert got, which stands for all layers, or an object whose
    `experts` has such a list for every layer, as a run records it for a step; others are passed over, and so is a last
    line that breaks off. Raises Unreadable.
    """
    totals: dict[str, list[int | Fraction]] = {}
    for line in _lines(path):
        for layer, rows in _layers(line):
            counts = [_count(value, n, layer) for n, value in enumerate(rows)]
            wanted = experts or len(totals.get(layer, counts))
            if len(counts) != wanted:
                raise Unreadable(f"{layer} has rows of {len(counts)} experts, and the model has {wanted}")
            before = totals.get(layer, [0] * wanted)
            totals[layer] = [total + count for total, count in zip(before, counts, strict=True)]
    if not totals:
        raise Unreadable("it holds no rows of experts")
    return tuple(_shares(layer, counts) for layer, counts in totals.items())


def _lines(path: Path) -> Iterator[object]:
    """The values of a file's lines."""
    try:
        with open(plain_file(path), encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield json.loads(line)
                    except (ValueError, RecursionError):
                        if line.endswith("\n") or number == 1:
                            raise Unreadable(f"line {number} is not JSON") from None
    except OSError as fault:
        raise Unreadable(fault.strerror or str(fault)) from None
    except UnicodeDecodeError:
        raise Unreadable("it is not text in UTF-8") from None


def _layers(value: object) -> Iterator[tuple[str, list[object]]]:
    """What a line says of each layer, whose name is as a message has it."""
    if isinstance(value, list):
        yield "the list", value
        return
    loads = value.get("experts", {}) if isinstance(value, dict) else None
    if not isinstance(loads, Mapping):
        raise Unreadable(f"{_quoted(value)} is no rows of experts by layer")
    for layer, rows in loads.items():
        if not isinstance(rows, list):
            raise Unreadable(f"`{layer}` has {_quoted(rows)}, and no list of rows")
        yield f"`{layer}`", rows


def _count(value: object, expert: int, layer: str) -> int | Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable(f"expert {expert} of {layer} has {_quoted(value)}, which is no number of rows")
    if isinstance(value, float) and not isfinite(value):
        raise Unreadable(f"expert {expert} of {layer} has {_quoted(value)} rows, which is not finite")
    if value < 0:
        raise Unreadable(f"expert {expert} of {layer} has {_quoted(value)} rows, which is below 0")
    if value > _MOST:
        raise Unreadable(f"expert {expert} of {layer} has more rows than {float(_MOST):.2g}")
    return value if isinstance(value, int) else Fraction(value)


def _shares(layer: str, counts: list[int | Fraction]) -> tuple[float, ...]:
    whole = sum(counts)
    if not whole:
        raise Unreadable(f"{layer} has no rows at all")
    return tuple(float(Fraction(count) / whole) for count in counts)


def _quoted(value: object) -> str:
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"

"""Reads a file of hardware entries that a user gives, and says what is wrong with it."""

import tomllib
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path

from moec.dsl.diagnostics import plan_error
from moec.dsl.suggest import did_you_mean

Entry = Mapping[str, object]

TEXTS = ("title", "processor", "half_type", "like")
LISTS = ("sources", "assumed")
SHARES = ("efficiency", "memory_efficiency", "link_efficiency", "network_efficiency")
FREE = ("launch", "dispatch", "depth", "attention_depth", "link_latency", "collective_latency", "network_latency")
"""Fields that may be 0."""

RATES = ("half", "single", "double", "float8")


def read_hardware(path: Path, known: Mapping[str, Entry], numbers: tuple[str, ...]) -> dict[str, Entry]:
    """The entries of a file; `known` are those before it, `numbers` the fields that are plain numbers.

    Raises PlanError for the first thing that is wrong.
    """
    table = _parsed(path)
    every = {*known, *table}
    for name, entry in table.items():
        if not isinstance(entry, dict) or name == "gpu":
            raise _fault(path, f"`{name}` is no entry")
        for why in (*_wrong_fields(entry, numbers), *_wrong_parents(name, entry, table, every)):
            raise _fault(path, f"`{name}`: {why}")
    return {name: entry for name, entry in table.items() if isinstance(entry, dict)}


def _parsed(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise _fault(path, fault.strerror or "it cannot be read") from None
    except ValueError as fault:  # no TOML, or no text
        raise _fault(path, str(fault).splitlines()[0]) from None


def _wrong_fields(entry: Entry, numbers: tuple[str, ...]) -> Iterator[str]:
    fields = (*TEXTS, *LISTS, *numbers, "compute", "attention", "ranks_per_node", "link_peer_bandwidth")
    for field, value in entry.items():
        if field not in fields:
            yield f"there is no field `{field}`; {did_you_mean(field, fields, 'fields')[0]}"
        elif field in TEXTS:
            if not isinstance(value, str):
                yield f"`{field}` is no text"
        elif field in LISTS:
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                yield f"`{field}` is no list of texts"
        elif field == "compute":
            rates = value if isinstance(value, dict) else {"single": value}
            if not rates or not all(name in RATES and _positive(rate) for name, rate in rates.items()):
                yield "`compute` is FLOP/s, or FLOP/s for each of half, single, double and float8"
        elif field == "attention":
            if not isinstance(value, list) or len(value) != 2 or not all(_positive(each) for each in value):
                yield "`attention` is two parts of the rate of large products, forward and backward"
        elif not _positive(value) and not (field in FREE and value == 0):
            yield f"`{field}` is no number above 0"
        elif field in SHARES and _number(value) > 1:
            yield f"`{field}` is a part, and at most 1"


def _wrong_parents(name: str, entry: Entry, table: Mapping[str, object], every: set[str]) -> Iterator[str]:
    """An entry takes over from one that is there, and in the end from none of its own."""
    seen = [name]
    parent = entry.get("like")
    while isinstance(parent, str) and parent in table:
        if parent in seen:
            yield f"it is like itself: {' like '.join([*seen, parent])}"
            return
        seen.append(parent)
        above = table[parent]
        parent = above.get("like") if isinstance(above, dict) else None
    if isinstance(parent, str) and parent not in every:
        yield f"it is like `{parent}`, which is no entry"


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value > 0


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _fault(path: Path, why: str) -> Exception:
    headline = f"the hardware in {path} cannot be read: {why}"
    return plan_error("E119", headline, "`moec calibrate -o FILE` writes such a file")

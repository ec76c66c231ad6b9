"""Reads a file of hardware entries that a user gives, and says what is wrong with it."""

import tomllib
from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from math import inf
from pathlib import Path

from moec.dsl.diagnostics import plan_error
from moec.dsl.plain_file import plain_file
from moec.dsl.schema import PROCESSORS, SETTINGS, Real, Whole
from moec.dsl.suggest import did_you_mean, listed

Entry = Mapping[str, object]

TEXTS = ("title", "processor", "half_type", "like")
LISTS = ("sources", "assumed")
RATES = ("half", "single", "double", "float8")
WAYS = ("attention_forward", "attention_backward")
"""Settings of a plan that an entry has side by side, as `attention`."""

LIMITS = {name: entry.kind for name, entry in SETTINGS["hardware"].items() if isinstance(entry.kind, Whole | Real)}
"""Of the numbers: what a plan may say, a file may."""

MOST_BYTES = 1 << 20


def read_hardware(path: Path, known: Mapping[str, Entry], own: Collection[str]) -> dict[str, Entry]:
    """The entries of a file; `known` are those before it, `own` the names of those that moec carries.

    Raises PlanError for the first thing that is wrong.
    """
    table = _parsed(path)
    every = {*known, *table}
    for name, entry in table.items():
        if name in own:
            raise _fault(path, f"`{name}` is an entry of moec's own table, and keeps what it says: take another name")
        if not isinstance(entry, dict):
            raise _fault(path, f"`{name}` is no entry")
        for why in (*wrong_fields(entry), *_wrong_parents(name, entry, table, every)):
            raise _fault(path, f"`{name}`: {why}")
    return {name: entry for name, entry in table.items() if isinstance(entry, dict)}


def most(name: str) -> float:
    """The largest that a number may be."""
    return float(LIMITS[name].most)


def _parsed(path: Path) -> dict[str, object]:
    try:
        with open(plain_file(path), "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as fault:
        raise _fault(path, fault.strerror or str(fault)) from None
    if len(data) > MOST_BYTES:
        raise _fault(path, f"it is longer than {MOST_BYTES >> 20} MiB")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except RecursionError:
        raise _fault(path, "its brackets are too deep") from None
    except ValueError as fault:  # no TOML, or no text
        raise _fault(path, str(fault).splitlines()[0]) from None


def wrong_fields(entry: Entry) -> Iterator[str]:
    """What is wrong with the fields of an entry by themselves."""
    fields = (*TEXTS, *LISTS, *(name for name in LIMITS if name not in WAYS), "attention")
    for field, value in entry.items():
        if field not in fields:
            yield f"there is no field `{field}`; {did_you_mean(field, fields, 'fields')[0]}"
        elif field in TEXTS:
            if not isinstance(value, str):
                yield f"`{field}` is no text"
            elif field == "processor" and value not in PROCESSORS:
                yield f"`processor` is {listed(PROCESSORS, 'or')}"
        elif field in LISTS:
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                yield f"`{field}` is no list of texts"
        elif field == "compute":
            rates = value if isinstance(value, dict) else {"single": value}
            if not rates or not all(name in RATES and _within("compute", rate) for name, rate in rates.items()):
                yield "`compute` is FLOP/s, or FLOP/s for each of half, single, double and float8"
        elif field == "attention":
            parts = value if isinstance(value, list) and len(value) == len(WAYS) else [None, None]
            if not all(_within(way, part) for way, part in zip(WAYS, parts, strict=True)):
                yield f"`attention` is two numbers, forward and backward, each {LIMITS[WAYS[0]].wanted}"
        elif not _within(field, value):
            yield f"`{field}` is {LIMITS[field].wanted}"


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


def _within(name: str, value: object) -> bool:
    """Whether a setting may be so; in base units."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < inf:
        return False
    return LIMITS[name].holds(Fraction(value))


def _fault(path: Path, why: str) -> Exception:
    headline = f"the hardware in {path} cannot be read: {why}"
    return plan_error("E119", headline, "`moec calibrate -o FILE` writes such a file")

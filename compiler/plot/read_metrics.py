"""Reads what a run has recorded: JSON lines, one a step."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from moec.dsl.plain_file import plain_file

Point: TypeAlias = tuple[int, float]
"""A step, and what was measured in it."""


class Unreadable(Exception):
    """Why a file is no record of a run."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One run, by step."""

    name: str
    figures: Mapping[str, list[Point]] = field(default_factory=dict)
    experts: Mapping[str, list[tuple[int, list[float]]]] = field(default_factory=dict)
    """By router how often each expert was chosen."""
    dropped: Mapping[str, list[Point]] = field(default_factory=dict)
    """By router the part of the choices without room."""
    skipped: tuple[int, ...] = ()
    """Steps that changed no weight."""

    @property
    def steps(self) -> int:
        """The last step."""
        return max((points[-1][0] for points in self.figures.values()), default=0)


def read_metrics(path: Path, name: str) -> Recorded:
    """Raises Unreadable; a last line that breaks off is left out, as is what is no number."""
    figures: dict[str, list[Point]] = {}
    experts: dict[str, list[tuple[int, list[float]]]] = {}
    dropped: dict[str, list[Point]] = {}
    skipped: list[int] = []
    for step, record in _records(path):
        for key, value in record.items():
            if key != "step" and _is_number(value):
                figures.setdefault(key, []).append((step, float(value)))  # pyright: ignore[reportArgumentType]
        if record.get("skipped") is True:
            skipped.append(step)
        lost = record.get("dropped")
        for router, counts in _loads(record.get("experts")):
            experts.setdefault(router, []).append((step, counts))
            if isinstance(lost, dict) and _is_number(lost.get(router)) and sum(counts):
                dropped.setdefault(router, []).append((step, lost[router] / sum(counts)))
    if not figures:
        raise Unreadable("no step is in it yet")
    return Recorded(name, figures, experts, dropped, tuple(skipped))


def _records(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Step and what stands beside it, in the order of the file."""
    last = 0
    for number, line in enumerate(_lines(path), 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            if not line.endswith("\n"):
                return
            raise Unreadable(f"line {number} is not JSON") from None
        step = record.get("step") if isinstance(record, dict) else None
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise Unreadable(f"line {number} has no step")
        if step < last:
            raise Unreadable(f"line {number} goes back to step {step}")
        last = step
        yield step, record


def _lines(path: Path) -> Iterator[str]:
    try:
        with open(plain_file(path), encoding="utf-8") as file:
            yield from file
    except OSError as fault:
        raise Unreadable(fault.strerror or str(fault)) from None
    except (UnicodeDecodeError, ValueError):
        raise Unreadable("it is not text in UTF-8") from None


def _loads(record: object) -> Iterator[tuple[str, list[float]]]:
    """Router and counts, if that is what it is."""
    if isinstance(record, dict):
        for router, counts in record.items():
            if isinstance(counts, list) and counts and all(_is_number(count) for count in counts):
                yield router, [float(count) for count in counts]


def _is_number(value: object) -> bool:
    """Finite, and small enough to be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300

"""What the file of a rank says about it: coordinates, groups, neighbours, slices; and its schedule, as text."""

import re
from ast import literal_eval
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from moec.compiler.check.faults import Wrong
from moec.compiler.check.terms import Site

Slices = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Header:
    """Of one rank."""

    file: str
    rank: int
    stage: int
    axes: Mapping[str, int]
    coordinates: Mapping[str, int]
    groups: Mapping[str, tuple[int, ...]]
    previous: int | None
    following: int | None
    slices: Slices
    schedule: str  # the text of `step`
    line: int  # on which it begins
    text: str = field(repr=False)  # of the file

    def site(self, beginning: str) -> Site:
        """The first line of the file that begins so."""
        lines = self.text.splitlines()
        found = next((n for n, line in enumerate(lines, 1) if line.startswith(beginning)), 1)
        return Site(self.file, found, lines[found - 1].partition("  # ")[0].strip())


_PAIRS = r'\{(?:"[^"\\]*": \d+(?:, )?)*\}'
_FILE = re.compile(
    r'"""(?:[^"\\]|\\.)*"""\n\nimport stage_(?P<stage>\d+) as stage\n\n'
    rf"RANK = (?P<rank>\d+)\nAXES = (?P<axes>{_PAIRS})\nCOORDINATES = (?P<coordinates>{_PAIRS})\n"
    r"GROUPS = \{\n(?P<groups>[^}]*)\}\n"
    r"PREVIOUS, NEXT = (?P<previous>None|\d+), (?P<next>None|\d+)  # [^\n]*\n"
    r"SLICES = (?P<slices>\{.*?\n\})\n\n\n"
    r"(?P<step>def step\(run\):\n.*)",
    re.DOTALL,
)
_GROUP = re.compile(r'    "([^"\\]*)": (range|)\(([\d, ]*)\),')


def read_header(file: str, text: str) -> Header:
    """Raises Wrong if the file has another form than moec writes."""
    found = _FILE.fullmatch(text)
    if found is None:
        raise Wrong("text", "the file of a rank has another form than moec writes", Site(file, 1))
    try:
        groups, slices = dict([_group(line) for line in found["groups"].splitlines()]), _slices(found["slices"])
    except (SyntaxError, ValueError) as fault:
        raise Wrong("text", str(fault), Site(file, 1)) from None
    return Header(
        file,
        int(found["rank"]),
        int(found["stage"]),
        _mapping(found["axes"]),
        _mapping(found["coordinates"]),
        groups,
        _neighbour(found["previous"]),
        _neighbour(found["next"]),
        slices,
        found["step"],
        text.count("\n", 0, found.start("step")) + 1,
        text,
    )


def _mapping(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in re.findall(r'"([^"\\]*)": (\d+)', text)}


@cache
def _group(line: str) -> tuple[str, tuple[int, ...]]:
    found = _GROUP.fullmatch(line)
    if found is None:
        raise ValueError(f"`{line.strip()}` is no group of ranks")
    numbers = [int(number) for number in re.findall(r"\d+", found[3])]
    return found[1], tuple(range(*numbers)) if found[2] else tuple(numbers)


@cache
def _slices(text: str) -> Slices:
    """The text without its comment is a dictionary of texts."""
    return literal_eval(text)


def _neighbour(text: str) -> int | None:
    return int(text) if text.isdigit() else None

"""Finds the comments of a text, and its brackets: what the grammar leaves out and a formatter has to keep."""

import re
from dataclasses import dataclass

from moec.dsl.source import Source

_PIECE = re.compile(r'(?P<comment>\#[^\n]*)|"(?:[^"\\\n]|\\.)*"|(?P<brace>[{}])')


@dataclass(frozen=True, slots=True)
class Comment:
    """`# text`, without what stands around it."""

    start: int
    text: str
    beside: bool
    """Something else stands before it on its line."""
    after_gap: bool
    """An empty line stands above it."""
    before_gap: bool
    """An empty line stands below it."""


def find_comments(source: Source) -> tuple[Comment, ...]:
    """The comments in the order of the text."""
    lines = source.text.split("\n")
    comments: list[Comment] = []
    number, start = 0, 0  # of the line that was reached, and where it starts
    for piece in _PIECE.finditer(source.text):
        if not piece["comment"]:
            continue
        while start + len(lines[number]) < piece.start():
            start += len(lines[number]) + 1
            number += 1
        beside = bool(source.text[start : piece.start()].strip())
        above, below = lines[max(0, number - 1) : number], lines[number + 1 : number + 2]
        gaps = ["" in map(str.strip, around) for around in (above, below)]
        comments.append(Comment(piece.start(), piece.group().rstrip(), beside, *gaps))
    return tuple(comments)


def find_braces(source: Source) -> dict[int, int]:
    """Where each `{` of a plan that parses is closed: offset of the bracket -> offset of its `}`, in any order."""
    closed: dict[int, int] = {}
    opened: list[int] = []
    for piece in _PIECE.finditer(source.text):
        if piece["brace"] == "{":
            opened.append(piece.start())
        elif piece["brace"] == "}":
            closed[opened.pop()] = piece.start()
    return closed

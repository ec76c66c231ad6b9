"""Gives every comment of a body to the part of a plan that it stands above, beside or in."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from moec.dsl.comments import Comment, find_braces, find_comments
from moec.dsl.source import Source
from moec.dsl.syntax import Binding, Block, Document, Item, Setting

Part: TypeAlias = Binding | Item


@dataclass(frozen=True, slots=True)
class Remarked:
    """A part of a plan with the comments on lines of their own above it, and the one at the end of its line."""

    part: Part
    above: tuple[Comment, ...] = ()
    beside: str = ""
    with_next: bool = False
    """Shares a line that ends in a comment with the part that follows."""


@dataclass(frozen=True, slots=True)
class Body:
    """What stands between two brackets, or in a whole plan."""

    opening: str
    """The comment beside the opening bracket."""
    parts: tuple[Remarked, ...]
    closing: tuple[Comment, ...]
    """Comments below the last part."""

    @property
    def silent(self) -> bool:
        """Whether it has no comments of its own, those inside inner blocks aside."""
        return not (self.opening or self.closing or any(part.above or part.beside for part in self.parts))


class Remarks:
    """The comments of one plan."""

    def __init__(self, source: Source):
        self._text = source.text
        self._comments = find_comments(source)
        self._starts = [comment.start for comment in self._comments]
        self._closed = find_braces(source)
        self._opened = sorted(self._closed)

    def of_plan(self, document: Document) -> Body:
        """The parts of a plan in the order of the text."""
        parts = (*document.bindings, *document.blocks)
        return self._body(sorted(parts, key=lambda part: part.place.span.start), 0, len(self._text))

    def of_block(self, block: Block) -> Body:
        """The items of a block."""
        bracket = self._bracket(block)
        return self._body(block.items, bracket + 1, self._closed[bracket])

    def _body(self, parts: Sequence[Part], start: int, end: int) -> Body:
        remarked = [Remarked(part) for part in parts]
        ends = [self._end(part) for part in parts]
        opening, closing = "", []
        for comment in self._comments[bisect_left(self._starts, start) : bisect_left(self._starts, end)]:
            after = bisect_right(ends, comment.start)  # parts that end before the comment
            if after < len(parts) and self._within(parts[after], comment):
                continue
            if comment.beside and after and "\n" not in self._text[ends[after - 1] : comment.start]:
                remarked[after - 1] = replace(remarked[after - 1], beside=comment.text)
                self._keep_line(remarked, ends, after - 1, comment)
            elif comment.beside and start and not self._text[start : comment.start].strip():
                opening = comment.text
            elif after == len(parts):
                closing.append(comment)
            else:
                own = replace(comment, after_gap=False, before_gap=False) if comment.beside else comment
                remarked[after] = replace(remarked[after], above=(*remarked[after].above, own))
        return Body(opening, tuple(remarked), tuple(closing))

    def _keep_line(self, remarked: list[Remarked], ends: Sequence[int], last: int, comment: Comment) -> None:
        """A comment at the end of a line is about all settings of the line: they stay together."""
        for n in range(last - 1, -1, -1):
            pair = remarked[n].part, remarked[n + 1].part
            if not all(isinstance(part, Setting) for part in pair) or "\n" in self._text[ends[n] : comment.start]:
                return
            remarked[n] = replace(remarked[n], with_next=True)

    def _within(self, part: Part, comment: Comment) -> bool:
        """Whether a comment that stands before the end of a part stands between its brackets."""
        return isinstance(part, Block) and self._bracket(part) < comment.start

    def _bracket(self, block: Block) -> int:
        return self._opened[bisect_left(self._opened, block.place.span.end)]

    def _end(self, part: Part) -> int:
        return self._closed[self._bracket(part)] + 1 if isinstance(part, Block) else part.place.span.end

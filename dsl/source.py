"""Texts that can be pointed into, and places in them."""

from dataclasses import dataclass, field

COMMAND_LINE = "command line"
"""The path of a Source that holds one `--set path=value`."""


@dataclass(frozen=True, slots=True)
class Source:
    """A plan, or one option of the command line."""

    path: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets into the text of a Source, `end` not included."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Label:
    """A piece of a text and what is to be said about it."""

    source: Source
    span: Span
    text: str
    primary: bool
    """The piece at fault, rather than a part of the reason."""


@dataclass(frozen=True, slots=True)
class Place:
    """A piece of a text."""

    source: Source
    span: Span

    @property
    def text(self) -> str:
        return self.source.text[self.span.start : self.span.end]

    def to(self, other: "Place") -> "Place":
        """From the start of this place to the end of another one in the same text."""
        return Place(self.source, Span(self.span.start, other.span.end))

    def label(self, text: str = "") -> Label:
        """The piece at fault."""
        return Label(self.source, self.span, text, primary=True)

    def note(self, text: str = "") -> Label:
        """A part of the reason."""
        return Label(self.source, self.span, text, primary=False)

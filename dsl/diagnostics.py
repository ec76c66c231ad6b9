"""What a user is told about the faults of a plan, and how that is laid out for reading."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import groupby

from moec.dsl.source import COMMAND_LINE, Label, Source, Span

__all__ = ["Diagnostic", "Label", "PlanError", "Severity", "Source", "Span", "plan_error", "printable", "render"]

WIDTH = 110
"""Columns of a plan's line that are shown; of a longer line, those around its first label."""


class Severity(Enum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One fault, complete: the headline stands alone, labels show where, notes say why, the help can be typed."""

    code: str
    headline: str
    labels: tuple[Label, ...] = ()
    help: tuple[str, ...] = ()
    severity: Severity = Severity.ERROR
    notes: tuple[str, ...] = ()


class PlanError(Exception):
    """The plan or the command line is at fault; holds all the diagnostics of one phase."""

    def __init__(self, diagnostics: Iterable[Diagnostic]):
        self.diagnostics = tuple(diagnostics)
        super().__init__("; ".join(f"{fault.code} {fault.headline}" for fault in self.diagnostics))


def plan_error(code: str, headline: str, *help: str, label: Label | None = None) -> PlanError:
    """An error of one fault, at one place of the plan or at none."""
    return PlanError((Diagnostic(code, headline, (label,) if label else (), help),))


def render(diagnostics: Iterable[Diagnostic], color: bool = False) -> str:
    """Lay out diagnostics in the manner of rustc, with an empty line between them.

    error[E203]: `heads` cannot be split evenly over mesh axis `tp`
      --> 30b_moe.plan:14:3
       |
     9 | mesh { pp = 4   dp = 2   ep = 16   tp = 5 }
       |                                    ------ `tp` has size 5
    14 |   heads, ffn, vocab over tp
       |   ^^^^^ 16 heads, and 16 % 5 = 1
       = help: sizes that divide 16 heads: 2, 4, 8, 16
    """
    ink = _Ink(color)
    return "\n".join("\n".join(_lines(diagnostic, ink)) + "\n" for diagnostic in diagnostics)


def as_record(diagnostic: Diagnostic) -> dict[str, object]:
    """A diagnostic for machines: code, severity, headline, help, and where its first primary label stands."""
    record: dict[str, object] = {
        "code": diagnostic.code,
        "severity": diagnostic.severity.value,
        "message": diagnostic.headline,
        "notes": list(diagnostic.notes),
        "help": list(diagnostic.help),
    }
    label = next((label for label in diagnostic.labels if label.primary), None)
    if label is None:
        return record
    start, _ = _line_bounds(label)
    line, column = _line_number(label), label.span.start - start + 1
    return record | {"file": label.source.path, "line": int(line or 1), "column": column, "label": label.text}


@dataclass(frozen=True, slots=True)
class _Ink:
    """Wraps text in ANSI colours, or leaves it plain."""

    color: bool

    def __call__(self, style: str, text: str) -> str:
        codes = {"error": "1;31", "warning": "1;33", "frame": "1;34", "bold": "1"}
        return f"\x1b[{codes[style]}m{text}\x1b[0m" if self.color and text else text


@dataclass(frozen=True, slots=True)
class _Mark:
    """A label on its line: columns of the line as shown, `end` not included."""

    start: int
    end: int
    label: Label


def _lines(diagnostic: Diagnostic, ink: _Ink) -> Iterator[str]:
    style = diagnostic.severity.value
    headline = printable(f": {diagnostic.headline}")
    yield ink(style, f"{style}[{diagnostic.code}]") + ink("bold", headline)
    sources = _by_source(diagnostic.labels)
    width = max((len(_line_number(label)) for label in diagnostic.labels), default=0)
    gutter = ink("frame", " " * width + " |")
    for position, (source, labels) in enumerate(sources):
        if position:
            yield gutter
        yield ink("frame", " " * width + (":::" if position else "-->")) + f" {_location(source, labels[0])}"
        yield gutter
        for number, on_line in groupby(sorted(labels, key=lambda label: label.span.start), _line_number):
            text, marks = _shown(source, list(on_line))
            yield ink("frame", f"{number:>{width}} |") + f" {text}".rstrip()
            yield from (f"{gutter} {drawn}" for drawn in _draw(marks, style, ink))
    for kind, texts in (("note", diagnostic.notes), ("help", diagnostic.help)):
        for text in texts:
            yield ink("frame", " " * width + " =") + f" {ink('bold', kind)}: {printable(text)}"


def _by_source(labels: tuple[Label, ...]) -> list[tuple[Source, list[Label]]]:
    """The labels of each text, that of the first primary label first, and in it that label first."""
    ordered = sorted(labels, key=lambda label: not label.primary)
    sources = list(dict.fromkeys(label.source for label in ordered))
    return [(source, [label for label in ordered if label.source == source]) for source in sources]


def _location(source: Source, label: Label) -> str:
    if source.path == COMMAND_LINE:
        return COMMAND_LINE
    start, _ = _line_bounds(label)
    return f"{printable(source.path)}:{_line_number(label)}:{label.span.start - start + 1}"


def _line_number(label: Label) -> str:
    """Counted from 1; nothing for the command line, which has no lines."""
    if label.source.path == COMMAND_LINE:
        return ""
    return str(label.source.text.count("\n", 0, label.span.start) + 1)


def _line_bounds(label: Label) -> tuple[int, int]:
    text = label.source.text
    end = text.find("\n", label.span.start)
    return text.rfind("\n", 0, label.span.start) + 1, end if end >= 0 else len(text)


def _shown(source: Source, labels: list[Label]) -> tuple[str, list[_Mark]]:
    """The line of these labels as it is printed, and where they stand in it; a label ends with its line."""
    start, end = _line_bounds(labels[0])
    left = max(start, labels[0].span.start - WIDTH // 2) if end - start > WIDTH else start
    right = min(end, left + WIDTH)
    before = "…" if left > start else ""
    cells = [before, *(_cell(letter) for letter in source.text[left:right]), "…" if right < end else ""]
    columns = [0]
    for cell in cells:
        columns.append(columns[-1] + sum(_columns(letter) for letter in cell))
    marks: list[_Mark] = []
    for label in labels:
        first = min(max(label.span.start, left), right) - left + 1
        last = min(max(label.span.end, left), right) - left + 1
        marks.append(_Mark(columns[first], max(columns[last], columns[first] + 1), label))
    return "".join(cells), marks


def _draw(marks: list[_Mark], style: str, ink: _Ink) -> Iterator[str]:
    """The underlines of one line, the text of the last one beside it and those of the others hung below."""
    ordered = sorted(marks, key=lambda mark: (mark.start, mark.label.primary))
    canvas: list[tuple[str, str]] = [(" ", "")] * max(mark.end for mark in ordered)
    for mark in sorted(ordered, key=lambda mark: mark.label.primary):
        sign = ("^", style) if mark.label.primary else ("-", "frame")
        canvas[mark.start : mark.end] = [sign] * (mark.end - mark.start)
    *hanging, last = ordered
    beside = last.end == len(canvas)
    tail = _text(last, style, ink) if beside else ""
    yield _joined(canvas, ink) + (f" {tail}" if tail else "")
    waiting = [mark for mark in (hanging if beside else ordered) if mark.label.text]
    if waiting:
        yield _bars(waiting, style, ink)
    while waiting:
        mark = waiting.pop()
        bars = _bars(waiting, style, ink) if waiting else ""
        pad = mark.start - (waiting[-1].start + 1 if waiting else 0)
        yield bars + " " * pad + _text(mark, style, ink)


def _bars(marks: list[_Mark], style: str, ink: _Ink) -> str:
    canvas: list[tuple[str, str]] = [(" ", "")] * (marks[-1].start + 1)
    for mark in marks:
        canvas[mark.start] = ("|", style if mark.label.primary else "frame")
    return _joined(canvas, ink)


def _joined(canvas: list[tuple[str, str]], ink: _Ink) -> str:
    runs = groupby(canvas, key=lambda cell: cell[1])
    return "".join(
        ink(style, text) if style else text for style, text in ((s, "".join(c for c, _ in run)) for s, run in runs)
    )


def _text(mark: _Mark, style: str, ink: _Ink) -> str:
    return ink(style if mark.label.primary else "frame", printable(mark.label.text))


def _cell(letter: str) -> str:
    """One letter of a plan as it is safe to print: a tab is four columns, and nothing can steer the terminal."""
    if letter == "\t":
        return "    "
    return letter if letter.isprintable() else "�"


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def printable(text: str) -> str:
    """A line that is safe to print."""
    return "".join(_cell(letter) for letter in text)

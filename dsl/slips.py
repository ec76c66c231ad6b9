"""Says in words what the grammar expected, and recognises the commonest slips."""

import re
from collections.abc import Callable, Collection

from moec.dsl.report import Report
from moec.dsl.source import Place, Source, Span

_PIECE = re.compile(r'#[^\n]*|\s+|(?P<piece>"[^"\n]*"|\*\*|//|->|==|=>|:=|&&|\|\||<=|>=|[\w.]+|.)')

# What is found, and what may have been meant by it.
_HELP = {
    ",": "settings stand side by side, without commas: `pp = 4  dp = 2`",
    ";": "settings stand side by side or on lines of their own, without semicolons",
    ":": "a setting is written `name = value`",
    "==": "a setting is written `name = value`",
    ":=": "a setting is written `name = value`",
    "**": "there is no power: write the product out, such as `2 * 2 * 2`",
    "^": "there is no power: write the product out, such as `2 * 2 * 2`",
    "//": "a comment starts with `#`; a division is `/`, and exact",
    "'": 'a string stands in double quotes: "..."',
    "%": "`%` is a unit, as in `20 %`; there is no remainder",
    "->": "a shard line is written `heads over tp`",
    "@": "a shard line is written `heads over tp`",
    "&&": "write one bound a line",
}


def report_slip(source: Source, start: int, accepted: Collection[str], report: Report) -> None:
    """Report the one place where the grammar cannot go on, and the terminals that it would take there."""
    piece = _PIECE.match(source.text, start)
    found = piece.group() if piece else ""
    place = Place(source, Span(start, start + len(found)))
    before = _last_piece(source, start)
    expected = _expected(accepted, before if found else None)
    if not found:
        place = Place(source, Span(max(0, len(source.text.rstrip()) - 1), len(source.text.rstrip())))
        place = before or place
    text = f"{expected} is expected {'here' if found else 'after this'}"
    headline = f"`{found}` is out of place" if found else "the text ends too early"
    report.error("E101", headline, place.label(text), help=_help(found, before, accepted))


def _last_piece(source: Source, end: int) -> Place | None:
    """What stands before an offset, comments and spaces left out."""
    last = None
    for piece in _PIECE.finditer(source.text, 0, end):
        if piece["piece"]:
            last = piece
    return Place(source, Span(last.start(), last.end())) if last else None


def _expected(accepted: Collection[str], before: Place | None) -> str:
    after = f" after `{before.text}`" if before else ""
    cases: tuple[tuple[Callable[[], bool], str], ...] = (
        (lambda: "EQUAL" in accepted and "OVER" in accepted, "`=`, `over` or `{`" + after),
        (lambda: "EQUAL" in accepted and "LBRACE" in accepted, "`{`" + after),
        (lambda: "EQUAL" in accepted and "OPEN_LIST" in accepted, "a list of dims, such as `[heads, _]`,"),
        (lambda: set(accepted) == {"PYTHON"}, '`python "package.module:Class"`'),
        (lambda: "EQUAL" in accepted, "`=`" + after),
        (lambda: "STRING" in accepted and "NAME" not in accepted, 'a string, such as "package.module:Class",'),
        (lambda: "OPEN" in accepted and "PYTHON" in accepted, "a value" + after),
        (lambda: "OPEN" in accepted and "CLOSE_LIST" in accepted, "a dim or `]`"),
        (lambda: "OPEN" in accepted, "a number" + after),
        (lambda: "CLOSE_LIST" in accepted, "`,` or `]`"),
        (lambda: "SHUT" in accepted, "a sign or `)`"),
        (lambda: "LET" in accepted, "a block, such as `mesh { ... }`, or a `let`"),
        (lambda: "LBRACE" in accepted, "`{`" + after),
        (lambda: "RBRACE" in accepted, "a setting, `name = value`, or `}`"),
        (lambda: "OVER" in accepted, "`over` or `whole`" + after),
        (lambda: "NAME" in accepted, "a name" + after),
    )
    return next((words for holds, words in cases if holds()), "the end")


def _help(found: str, before: Place | None, accepted: Collection[str]) -> tuple[str, ...]:
    if found.startswith("."):
        return (f"write a digit before the point: `0{found}`",)
    if found == "{" and before and before.text == "=":
        return ("a block has no `=` before its bracket: `experts { ... }`",)
    if found in ("}", "") and "PYTHON" in accepted:
        return ("give a value, or take the name out",)
    if before and found + before.text in ("**", "=="):
        return (_HELP[found + before.text],)
    if before and before.text == "%":
        return (_HELP["%"],)
    if found == "}" and "LBRACE" in accepted:
        return ("a setting is written `name = value`, and a shard line `heads over tp`",)
    return (_HELP[found],) if found in _HELP else ()

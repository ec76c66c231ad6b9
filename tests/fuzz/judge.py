"""Judges what moec makes of a case: a plan or coded diagnostics, well formed and soon, and nothing else."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from count_calls import count_calls
from draw_case import Case

from moec.dsl import Diagnostic, Plan, PlanError, read_plan, render
from moec.dsl.codes import CODES
from moec.dsl.diagnostics import Severity, as_record
from moec.dsl.show_mesh import show_mesh

MOST_CALLS = 4_000_000
"""Of Python functions, in which any plan is read and shown: a bound on work that is the same on every machine."""

_TOKENS = re.compile(
    r"\b(?:LET|OVER|WHOLE|PYTHON|OPEN|SHUT|OPEN_LIST|CLOSE_LIST|RELATION|SIGN|SCALE|STRING|NUMBER|EQUAL|COMMA|LESSTHAN"
    r"|[LR]BRACE|[LR]SQB|(?<!model )(?<!=)NAME)\b|\$END|__ANON|Token\("
)
_REPRS = re.compile(
    r"<[\w.]+ object|<class |at 0x[0-9a-f]+|\bNone\b"
    r"|\b(?:Fraction|PosixPath|frozenset|Word|Number|Chain|Span|Source|Place)\("
)

_LETTER = re.compile(r"U\+[0-9A-F]{4,6} [A-Z0-9 -]+")
"""How a message names a letter: a MINUS SIGN is no terminal."""


class Wrong(AssertionError):
    """What moec said or raised that it must not."""


def judge(case: Case, folder: Path) -> tuple[int, Plan | None]:
    """Calls that a case took, and its plan if it is one; raises Wrong."""
    path = folder / "case.plan"
    path.write_bytes(case.plan)
    read: list[Plan] = []

    def answer() -> None:
        try:
            read.append(read_plan(str(path), case.overrides))
            show_mesh(read[0])
            check_said(read[0].warnings, Severity.WARNING, case)
        except PlanError as fault:
            check_said(fault.diagnostics, Severity.ERROR, case)

    try:
        calls = count_calls(answer)
    except Wrong:
        raise
    except Exception as fault:
        raise Wrong(f"{type(fault).__name__}: {fault}") from fault
    if calls > MOST_CALLS:
        raise Wrong(f"it took {calls:,} calls")
    return calls, read[0] if read else None


def check_said(diagnostics: Sequence[Diagnostic], severity: Severity, case: Case) -> None:
    """Raise Wrong for diagnostics that are not what a user should see."""
    if severity is Severity.ERROR and not diagnostics:
        raise Wrong("an error without a diagnostic")
    for diagnostic in diagnostics:
        _check_one(diagnostic, severity, case)
    shown = render(diagnostics)
    if any(letter != "\n" and not letter.isprintable() for letter in shown):
        raise Wrong(f"{shown!r} could steer a terminal")
    render(diagnostics, color=True)


def _check_one(diagnostic: Diagnostic, severity: Severity, case: Case) -> None:
    if diagnostic.code not in CODES or not re.fullmatch(r"[EW]\d{3}", diagnostic.code):
        raise Wrong(f"{diagnostic.code} is no code")
    if diagnostic.severity is not severity:
        raise Wrong(f"{diagnostic.code} is no {severity.value}")
    given = case.plan.decode("utf-8", "replace") + "".join(case.overrides)
    said = [diagnostic.headline, *diagnostic.help, *(label.text for label in diagnostic.labels)]
    if severity is Severity.ERROR and not diagnostic.help and "is expected" not in diagnostic.labels[0].text:
        raise Wrong(f"{diagnostic.code} has no hint: {diagnostic.headline}")
    if not diagnostic.headline.strip():
        raise Wrong(f"{diagnostic.code} has no headline")
    for text in said:
        _check_words(text, given)
    for label in diagnostic.labels:
        if not 0 <= label.span.start <= label.span.end <= len(label.source.text):
            raise Wrong(f"{diagnostic.code} points outside of its text: {label.span}")
    if diagnostic.labels and not any(label.primary for label in diagnostic.labels):
        raise Wrong(f"{diagnostic.code} has no primary label")
    record = json.loads(json.dumps(as_record(diagnostic)))
    lines = max((label.source.text.count("\n") + 1 for label in diagnostic.labels), default=0)
    if diagnostic.labels and not (1 <= record["line"] <= lines and record["column"] >= 1):
        raise Wrong(f"{diagnostic.code} stands on a line that is none: {record}")


def _check_words(text: str, given: str) -> None:
    """A message names no terminal of the grammar and shows no object of Python's, unless the user wrote it."""
    for found in _found(_LETTER.sub("", text), (_TOKENS, _REPRS)):
        if found not in given:
            raise Wrong(f"`{found}` in the message: {text}")


def _found(text: str, patterns: Iterable[re.Pattern[str]]) -> list[str]:
    return [found for pattern in patterns for found in pattern.findall(text)]

"""Collects the diagnostics of a phase, so that all of them are told together."""

from collections.abc import Iterable
from dataclasses import replace

from moec.dsl.diagnostics import Diagnostic, PlanError, Severity
from moec.dsl.source import COMMAND_LINE, Label

MOST = 20
"""Errors that are told at once; more are counted."""


class Report:
    """Grows while a phase reads on; `close` ends the phase."""

    def __init__(self) -> None:
        self._errors: list[Diagnostic] = []
        self._warnings: list[Diagnostic] = []

    @property
    def errors(self) -> int:
        """How many there are so far."""
        return len(self._errors)

    def error(
        self, code: str, headline: str, *labels: Label, help: Iterable[str] = (), notes: Iterable[str] = ()
    ) -> None:
        self._errors.append(Diagnostic(code, headline, labels, tuple(help), notes=tuple(notes)))

    def warn(self, code: str, headline: str, *labels: Label, help: Iterable[str] = ()) -> None:
        self._warnings.append(Diagnostic(code, headline, labels, tuple(help), Severity.WARNING))

    def add(self, errors: Iterable[Diagnostic]) -> None:
        self._errors.extend(errors)

    def taken(self) -> tuple[Diagnostic, ...]:
        """The errors so far, for another report."""
        return tuple(self._errors)

    def close(self) -> tuple[Diagnostic, ...]:
        """Raise PlanError with every error so far, in the order of the text; else return the warnings."""
        if not self._errors:
            return tuple(sorted(self._warnings, key=_position))
        told = sorted(self._errors, key=_position)[:MOST]
        hidden = len(self._errors) - len(told)
        if hidden:
            more = f"{hidden} more {'fault is' if hidden == 1 else 'faults are'} not shown"
            told[-1] = replace(told[-1], help=(*told[-1].help, more))
        raise PlanError(told)


def _position(diagnostic: Diagnostic) -> tuple[bool, int]:
    """The command line after the plan, and each from its start."""
    primary = next((label for label in diagnostic.labels if label.primary), None)
    if primary is None:
        return False, 0
    return primary.source.path == COMMAND_LINE, primary.span.start

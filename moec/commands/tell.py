"""Says what is wrong on standard error, as text for a person."""

import os
import sys
from collections.abc import Iterable, Sequence

from moec.dsl import Diagnostic, render


def tell(diagnostics: Iterable[Diagnostic]) -> None:
    text = render(diagnostics, color=sys.stderr.isatty() and "NO_COLOR" not in os.environ)
    if text:
        print(text, file=sys.stderr)


def say_where_to_read_on(diagnostics: Sequence[Diagnostic]) -> None:
    """To a person only: what reads our output otherwise gets the diagnostics and nothing else."""
    if sys.stderr.isatty():
        print(f"more about {diagnostics[0].code}: moec explain {diagnostics[0].code}", file=sys.stderr)

"""Says what is wrong on standard error, and what was found on standard output, as text for a person."""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from moec.dsl import Diagnostic, render
from moec.dsl.diagnostics import plan_error, printable


def tell(diagnostics: Iterable[Diagnostic]) -> None:
    text = render(diagnostics, color=sys.stderr.isatty() and "NO_COLOR" not in os.environ)
    if text:
        print(text, file=sys.stderr)


def say_where_to_read_on(diagnostics: Sequence[Diagnostic]) -> None:
    """To a person only: what reads our output otherwise gets the diagnostics and nothing else."""
    if sys.stderr.isatty():
        print(f"more about {diagnostics[0].code}: moec explain {diagnostics[0].code}", file=sys.stderr)


def say(*texts: str) -> None:
    """Print lines, in which nothing that a file or its name holds can steer the terminal."""
    put("".join(f"{printable(line)}\n" for text in texts for line in text.split("\n")))


def put(text: str) -> None:
    """Write text as it is to standard output. Raises PlanError if that takes no more."""
    with _taken():
        print(text, end="")


def finish() -> None:
    """The same of what was put, and is not yet written."""
    with _taken():
        print(end="", flush=True)


def let_go() -> None:
    """Whatever is still to be written goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _taken() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as fault:
        let_go()
        help = "make room, or send it elsewhere"
        raise plan_error("E507", f"standard output cannot be written: {fault.strerror}", help) from None

"""Tells a person at a terminal what takes longer than two seconds, while it does."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

PATIENCE = 2.0
"""Seconds after which it is worth saying."""


@contextmanager
def working(on: str) -> Iterator[None]:
    """`on` is shown on standard error with a clock, and is gone when the work is done."""
    if not sys.stderr.isatty():
        yield
        return
    done = Event()
    clock = Thread(target=_show, args=(on, done), daemon=True)
    clock.start()
    try:
        yield
    finally:
        done.set()
        clock.join()


def _show(on: str, done: Event) -> None:
    if done.wait(PATIENCE):
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(on, total=None)
        done.wait()

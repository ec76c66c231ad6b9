"""Programs of plans, each compiled once a process: no test changes one, so all may look at the same."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from moec.compiler.emit import emit
from moec.compiler.pipeline import compile_plan
from moec.compiler.program import Program
from moec.dsl import read_plan


@cache
def compiled(path: Path, *settings: str) -> Program:
    """As `--set` changes the plan."""
    return compile_plan(read_plan(str(path), settings))


@cache
def emitted(path: Path, *settings: str) -> Mapping[str, str]:
    return emit(compiled(path, *settings))

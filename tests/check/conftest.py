"""Programs to check, each compiled once."""

from functools import cache
from pathlib import Path

import pytest

from moec.compiler.emit import emit
from moec.compiler.pipeline import compile_plan
from moec.compiler.program import Program
from moec.dsl import read_plan

ROOT = Path(__file__).parent.parent.parent


@cache
def compiled(path: Path) -> tuple[Program, dict[str, str]]:
    program = compile_plan(read_plan(str(path), []))
    return program, emit(program)


@pytest.fixture(scope="session")
def compile_once():
    """Plan below the root of the repository -> its program and its files."""
    return lambda name: compiled(ROOT / name)

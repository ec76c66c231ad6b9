"""How the tests of the language read a plan."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moec.dsl import Plan, PlanError, read_plan

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

DENSE = """
model m { layers = 4  hidden = 64  heads = 4  ffn = 128  vocab = 256  seq = 64 }
mesh { pp = 2  dp = 2  tp = 2 }
shard { layers over pp  batch over dp  heads, ffn, vocab over tp }
schedule 1f1b { batch = 16  accumulate = 4 }
"""

Read = Callable[..., Plan]
Codes = Callable[..., list[str]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a text with overrides as a plan."""

    def read_text(text: str, *overrides: str) -> Plan:
        (tmp_path / "test.plan").write_text(text, encoding="utf-8")
        return read_plan(str(tmp_path / "test.plan"), overrides)

    return read_text


@pytest.fixture
def codes(read: Read) -> Codes:
    """The codes of the faults of a text, none if it is a plan."""

    def codes_of(text: str, *overrides: str) -> list[str]:
        try:
            read(text, *overrides)
        except PlanError as fault:
            return [diagnostic.code for diagnostic in fault.diagnostics]
        return []

    return codes_of


@pytest.fixture
def dense() -> str:
    """A dense plan on eight ranks."""
    return DENSE


@pytest.fixture
def examples() -> Path:
    """The folder of the examples."""
    return EXAMPLES

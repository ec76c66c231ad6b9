"""The tiny example, read and compiled once."""

from pathlib import Path

import pytest
from compiled import compiled

from moec.compiler.program import Program
from moec.dsl import Plan

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def tiny_plan() -> Plan:
    return compiled(EXAMPLES / "tiny_moe.plan").plan


@pytest.fixture(scope="session")
def tiny() -> Program:
    return compiled(EXAMPLES / "tiny_moe.plan")


@pytest.fixture(scope="session")
def folded() -> Program:
    """Experts on the ranks of dp and tp, and ragged rows."""
    small = ["model.layers=2", "model.hidden=64", "model.seq=64", "model.vocab=64", "model.experts.hidden=64"]
    return compiled(EXAMPLES / "sequence_parallel.plan", *small)

"""The tiny example, read and compiled once."""

from pathlib import Path

import pytest

from moec.compiler.pipeline import compile_plan
from moec.compiler.program import Program
from moec.dsl import Plan, read_plan

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def tiny_plan() -> Plan:
    return read_plan(str(EXAMPLES / "tiny_moe.plan"), [])


@pytest.fixture(scope="session")
def tiny(tiny_plan: Plan) -> Program:
    return compile_plan(tiny_plan)


@pytest.fixture(scope="session")
def folded() -> Program:
    """Experts on the ranks of dp and tp, and ragged rows."""
    small = ["model.layers=2", "model.hidden=64", "model.seq=64", "model.vocab=64", "model.experts.hidden=64"]
    return compile_plan(read_plan(str(EXAMPLES / "sequence_parallel.plan"), small))

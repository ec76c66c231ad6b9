"""The programs of every plan of plans/ and of every example but the largest compute what the unsharded model does."""

from pathlib import Path

import pytest

from moec.compiler.pipeline import compile_plan
from moec.compiler.verify import verify
from moec.dsl import read_plan

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
TOO_LARGE = {"30b_moe"}
"""Examples whose ranks are too many to run in one process in a test."""

PLANS = [*sorted((HERE / "plans").glob("*.plan"))]
PLANS += [path for path in sorted(EXAMPLES.glob("*.plan")) if path.stem not in TOO_LARGE]


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_equal(path: Path) -> None:
    plan = read_plan(path)
    verdict = verify(plan, compile_plan(plan), None)
    assert verdict.equal, "\n".join(verdict.faults)

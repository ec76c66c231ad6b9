"""The programs of every plan of plans/ and of every example but the largest compute what the unsharded model does."""

from pathlib import Path

import pytest
from compiled import compiled

from moec.compiler.verify import verify

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
TOO_LARGE = {"30b_moe"}
"""Examples whose ranks are too many to run in one process in a test."""

FEWER_RANKS = {"llama_405b": ("mesh.pp=4", "mesh.tp=4")}
"""Of the others those that are run on a smaller mesh: 126 layers divide over 4 stages as little as over 8."""

PLANS = [*sorted((HERE / "plans").glob("*.plan"))]
PLANS += [path for path in sorted(EXAMPLES.glob("*.plan")) if path.stem not in TOO_LARGE]


MARKED = [pytest.param(path, marks=pytest.mark.sweep if path.stem in FEWER_RANKS else ()) for path in PLANS]


@pytest.mark.parametrize("path", MARKED, ids=lambda path: path.stem)
def test_equal(path: Path) -> None:
    program = compiled(path, *FEWER_RANKS.get(path.stem, ()))
    verdict = verify(program.plan, program)
    assert verdict.equal, "\n".join(verdict.faults)

"""The log of a run is read as how its tokens choose experts."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from moec.compiler.cost import read_routing
from moec.compiler.cost.balance import balance_of
from moec.compiler.pipeline import compile_plan
from moec.compiler.program import Program
from moec.dsl import PlanError, read_plan

PLAN = Path(__file__).parents[2] / "examples" / "tiny_moe.plan"

TWO_RANKS = """
model m { layers = 2  hidden = 32  heads = 4  vocab = 64  seq = 32  experts { count = 4  hidden = 32  top_k = 1 } }
mesh { ep = 2 }
shard { batch, experts over ep }
schedule gpipe { batch = 4 }
"""


@pytest.fixture(scope="module")
def program() -> Program:
    return compile_plan(read_plan(str(PLAN), ["mesh.ep=1", "mesh.pp=1"]), "split_model")


def test_a_log_is_read(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 1, "loss": 2.0, "experts": {"layers.0": [1, 2, 3, 4], "layers.1": [4, 0, 0, 0]}, "dropped": {}},
        {"step": 1, "held_out_loss": 2.0},
        {"step": 2, "loss": 2.0, "experts": {"layers.0": [0, 0, 0, 10], "layers.1": [1, 1, 1, 1]}, "dropped": {}},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    routing = read_routing(str(path), program)
    assert np.allclose(routing.of(4), [np.array([1, 2, 3, 14]) / 20, np.array([5, 1, 1, 1]) / 8])
    assert routing.text == f"as measured in {path}"


def test_a_run_that_was_killed_is_read(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "experts": {"a": [1, 1, 1, 1]}}\n{"step": 2, "expe')
    assert np.allclose(read_routing(str(path), program).of(4), 0.25)


def test_the_worst_layer_decides(tmp_path: Path) -> None:
    """Each of two layers has all its rows on one of two ranks; together they would look even."""
    plan = tmp_path / "two.plan"
    plan.write_text(TWO_RANKS)
    spread = compile_plan(read_plan(str(plan)))
    path = tmp_path / "rows.json"
    path.write_text('{"experts": {"a": [100, 0, 0, 0], "b": [0, 0, 0, 100]}}')
    found = balance_of(spread, read_routing(str(path), spread))
    assert found.load_balance == pytest.approx(0.5) and found.skew == pytest.approx(2.0)


def test_large_rows_have_equal_shares(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("[1e308, 1e308, 1e308, 1e308]")
    assert np.allclose(read_routing(str(path), program).of(4), 0.25)


@pytest.mark.parametrize(
    ("experts", "why"),
    [
        ('{"a": [1, 2]}', "`a` has rows of 2 experts, and the model has 4"),
        ('{"a": [1, 2, 3, 4, 5, 6, 7, 8]}', "`a` has rows of 8 experts, and the model has 4"),
        ('{"a": [1, "2", 1, 1]}', 'expert 1 of `a` has "2", which is no number of rows'),
        ('{"a": [true, 1, 1, 1]}', "expert 0 of `a` has true, which is no number of rows"),
        ('{"a": [[1], 1, 1, 1]}', "expert 0 of `a` has a list, which is no number of rows"),
        ('{"a": [1, 1, 1, NaN]}', "expert 3 of `a` has NaN rows, which is not finite"),
        ('{"a": [1, 1, 1, 1e999]}', "expert 3 of `a` has Infinity rows, which is not finite"),
        ('{"a": [1, 1, -5, 1]}', "expert 2 of `a` has -5 rows, which is below 0"),
        ('{"a": [0, 0, 0, 0]}', "`a` has no rows at all"),
        ('{"a": 7}', "`a` has 7, and no list of rows"),
        (f'{{"a": [1{"0" * 400}, 1, 1, 1]}}', "expert 0 of `a` has more rows than 1.8e+308"),
        ("[" * 200_000, "line 1 is not JSON"),
        ("[1, 2]", "an object is no rows of experts by layer"),
        ("{}", "it holds no rows of experts"),
    ],
    ids=range(14),
)
def test_what_is_no_load_of_these_experts_is_a_fault(program: Program, tmp_path: Path, experts: str, why: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "experts": {experts}}}\n')
    with pytest.raises(PlanError) as fault:
        read_routing(str(path), program)
    assert fault.value.diagnostics[0].headline == f"--routing {path}: {why}"


def test_a_pipe_is_not_waited_for(program: Program, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PlanError, match="no plain file"):
        read_routing(str(tmp_path / "pipe"), program)

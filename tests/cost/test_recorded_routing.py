"""The log of a run is read as how its tokens choose experts."""

import json
from pathlib import Path

import numpy as np
import pytest

from moec.compiler.cost import read_routing
from moec.compiler.pipeline import compile_plan
from moec.compiler.program import Program
from moec.dsl import PlanError, read_plan

PLAN = Path(__file__).parents[2] / "examples" / "tiny_moe.plan"


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
    assert np.allclose(routing.of(4), np.array([6, 3, 4, 15]) / 28)
    assert routing.text == f"as measured in {path}"


@pytest.mark.parametrize("experts", ['{"layers.0": [1, 2]}', '{"layers.0": ["a", 1, 1, 1]}', "[1, 2]", "{}"])
def test_what_is_no_load_of_these_experts_is_a_fault(program: Program, tmp_path: Path, experts: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "experts": {experts}}}\n')
    with pytest.raises(PlanError):
        read_routing(str(path), program)

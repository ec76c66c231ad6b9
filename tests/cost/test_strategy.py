"""The strategy document's plans break what they claim, and the plans beside them keep what they say."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from moec.cli import main
from moec.compiler.cost import Estimate, decide, estimate, machine_of
from moec.compiler.pipeline import compile_plan
from moec.dsl import read_plan

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
BROKEN = {
    "strategy/initial": {"memory", "latency", "comm_overhead", "utilization", "world"},
    "strategy/optimized": {"memory", "latency", "comm_overhead", "utilization", "world"},
}
KEPT = ("strategy/nearest", "30b_moe")


@cache
def found(name: str) -> Estimate:
    plan = read_plan(str(EXAMPLES / f"{name}.plan"), [])
    return estimate(compile_plan(plan), machine_of(plan))


@pytest.mark.parametrize("name", BROKEN)
def test_document_breaks_its_bounds(name: str) -> None:
    assert {each.name for each in decide(found(name)) if not each.passed} == BROKEN[name]


def test_mesh_of_the_document() -> None:
    """Axes multiply, to many times its 16 GPUs."""
    worlds = [found(name).value_of("world") for name in BROKEN]
    assert worlds == [2 * 8 * 8, 4 * 2 * 16 * 4]


def test_model_of_the_document() -> None:
    """In its own dimensions it has a fifth of 30 billion parameters, or less."""
    assert 4e9 < found("strategy/optimized").parameters < 7e9
    assert found("strategy/initial").parameters == found("strategy/optimized").parameters


@pytest.mark.parametrize("name", KEPT)
def test_bounds_are_kept(name: str) -> None:
    assert 29e9 < found(name).parameters < 31e9
    assert [each for each in decide(found(name)) if not each.passed] == []


def test_nearest_is_bound_by_all_six() -> None:
    six = {"memory", "latency", "throughput", "comm_overhead", "load_balance", "utilization"}
    assert six <= {each.name for each in decide(found("strategy/nearest"))}


@pytest.mark.sweep
@pytest.mark.parametrize(("name", "status"), [*((name, 1) for name in BROKEN), *((name, 0) for name in KEPT)])
def test_check(name: str, status: int) -> None:
    assert main(["check", str(EXAMPLES / f"{name}.plan")]) == status


@pytest.mark.sweep
def test_page_is_up_to_date() -> None:
    assert subprocess.run([sys.executable, str(ROOT / "benchmarks" / "strategy.py"), "--check"]).returncode == 0

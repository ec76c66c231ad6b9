"""Whatever plan is drawn, its programs pass the check without numbers, and compute what the unsharded model does."""

from pathlib import Path

import pytest
from draw_plan import plans
from hypothesis import HealthCheck, given, settings

from moec.compiler.pipeline import compile_plan
from moec.compiler.verify import verify
from moec.dsl import read_plan

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def check(text: str, folder: Path) -> None:
    """Compile and run a plan; it must be one that the DSL takes."""
    path = folder / "drawn.plan"
    path.write_text(text, encoding="utf-8")
    plan = read_plan(path)
    verdict = verify(plan, compile_plan(plan), None)
    assert verdict.equal, "\n".join((text, *verdict.faults))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawn")


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(text=plans(world=12))
def test_equal(folder: Path, text: str) -> None:
    check(text, folder)


@pytest.mark.sweep
def test_sweep(folder: Path, request: pytest.FixtureRequest) -> None:
    """`--cases` of them; one that fails is shrunk, and its plan is printed."""

    @settings(max_examples=request.config.getoption("--cases"), deadline=None, suppress_health_check=QUIET)
    @given(text=plans(world=24))
    def run(text: str) -> None:
        check(text, folder)

    run()

"""Whatever plan is drawn, its programs pass the check without numbers, and compute what the unsharded model does."""

import hashlib
from pathlib import Path

import pytest
from draw_module import Imported, modules
from draw_plan import plans
from hypothesis import HealthCheck, given, settings

from moec.compiler.pipeline import compile_plan
from moec.compiler.verify import verify
from moec.dsl import read_plan

DRAWN = "drawn"
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def check(text: str, folder: Path) -> None:
    """Compile and run a plan; it must be one that the DSL takes."""
    path = folder / "drawn.plan"
    path.write_text(text, encoding="utf-8")
    plan = read_plan(path)
    verdict = verify(plan, compile_plan(plan), None)
    assert verdict.equal, "\n".join((text, *verdict.faults))


def check_module(drawn: Imported, folder: Path) -> None:
    """The same of a plan that imports a module. Its name is new each time, since Python keeps what it has imported."""
    name = f"drawn_{hashlib.blake2b(drawn.source.encode(), digest_size=8).hexdigest()}"
    (folder / f"{name}.py").write_text(drawn.source, encoding="utf-8")
    check(drawn.plan.replace(DRAWN, name), folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("drawn")


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(text=plans(world=12))
def test_equal(folder: Path, text: str) -> None:
    check(text, folder)


@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=QUIET)
@given(drawn=modules(DRAWN))
def test_modules_are_equal(folder: Path, drawn: Imported) -> None:
    check_module(drawn, folder)


@pytest.mark.sweep
def test_sweep(folder: Path, request: pytest.FixtureRequest) -> None:
    """`--cases` of them; one that fails is shrunk, and its plan is printed."""

    @settings(max_examples=request.config.getoption("--cases"), deadline=None, suppress_health_check=QUIET)
    @given(text=plans(world=24))
    def run(text: str) -> None:
        check(text, folder)

    run()


@pytest.mark.sweep
def test_sweep_of_modules(folder: Path, request: pytest.FixtureRequest) -> None:
    """The same of modules that are imported."""

    @settings(max_examples=request.config.getoption("--cases"), deadline=None, suppress_health_check=QUIET)
    @given(drawn=modules(DRAWN))
    def run(drawn: Imported) -> None:
        check_module(drawn, folder)

    run()

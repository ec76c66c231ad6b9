"""A plan that reads well compiles and passes its check, or is answered with coded diagnostics, and nothing else.

pytest -m sweep tests/fuzz/test_compile.py --cases 500
"""

from pathlib import Path

import pytest
from case_files import CASES, read_case, write_case
from draw_case import ROOT, Case, readable_plan
from judge import Wrong, check_said, judge

from moec.compiler.check import check
from moec.compiler.emit import emit
from moec.compiler.pipeline import compile_plan
from moec.dsl import Plan, PlanError
from moec.dsl.diagnostics import Severity
from moec.dsl.plan import Decoder

MOST_RANKS = 64
MOST_LAYERS = 12


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the examples can be imported, wherever the plan stands."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))


def small(plan: Plan) -> bool:
    """Is it compiled soon? Large plans compile too, and would make the sweep long."""
    layers = plan.model.layers if isinstance(plan.model, Decoder) else dict(plan.model.arguments).get("blocks")
    return (
        isinstance(layers, int)
        and layers <= MOST_LAYERS
        and plan.mesh.world_size <= MOST_RANKS
        and plan.schedule.accumulate <= 64
    )


def judge_compiled(plan: Plan, case: Case) -> bool:
    """Whether the plan compiles; raises Wrong for whatever is neither a program nor a diagnostic."""
    try:
        program = compile_plan(plan)
        report = check(program, emit(program))
    except PlanError as fault:
        check_said(fault.diagnostics, Severity.ERROR, case)
        return False
    except Exception as fault:
        raise Wrong(f"{type(fault).__name__}: {fault}") from fault
    if report.faults:
        raise Wrong(str(report.faults[0]))
    return True


def sweep(count: int, folder: Path) -> str:
    """Compile so many plans that read well; says how many are programs."""
    seed, compiled, programs, failed = 0, 0, 0, []
    while compiled < count:
        case = readable_plan(seed)
        _, plan = judge(case, folder)
        if plan and small(plan):
            compiled += 1
            try:
                programs += judge_compiled(plan, case)
            except Wrong as fault:
                failed.append(f"{write_case(case, f'compiled_{seed}')}: {fault}")
        seed += 1
    assert not failed, "\n".join(failed)
    return f"{count} plans compiled, {programs} of them to programs"


@pytest.mark.parametrize("path", sorted(CASES.glob("compiled_*.plan")), ids=lambda path: path.stem)
def test_case(path: Path, tmp_path: Path) -> None:
    """What broke once."""
    case = read_case(path)
    _, plan = judge(case, tmp_path)
    assert plan and judge_compiled(plan, case) is not None


def test_slice(tmp_path: Path) -> None:
    sweep(3, tmp_path)


@pytest.mark.sweep
def test_sweep(tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    said = sweep(request.config.getoption("--cases"), tmp_path)
    with capsys.disabled():
        print(f"\n{said}")

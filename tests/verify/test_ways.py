"""The ways to prove a plan with numbers: at its own sizes, as processes, and its choices of experts one by one."""

from pathlib import Path

import pytest

import moec.compiler.verify.memory as memory
from moec.compiler.emit import emit
from moec.compiler.folder import write_folder
from moec.compiler.pipeline import compile_plan
from moec.compiler.verify import Verdict, statement, verify
from moec.dsl import PlanError, read_plan

ROOT = Path(__file__).resolve().parents[2]

RAGGED = """
model ragged {
  layers = 2   hidden = 24   heads = 4   vocab = 40   seq = 12
  experts { count = 6   hidden = 10   top_k = 2   capacity = 0.75   route = per_microbatch }
}
mesh { dp = 3  tp = 2 }
shard { batch over dp   experts over dp   heads, ffn, vocab over tp }
schedule gpipe { batch = 12   accumulate = 2 }
"""


def proved(text: str, folder: Path, **how: bool) -> Verdict:
    path = folder / "test.plan"
    path.write_text(text, encoding="utf-8")
    plan = read_plan(path)
    return verify(plan, compile_plan(plan), **how)


def test_at_its_own_sizes(tmp_path: Path) -> None:
    verdict = proved(RAGGED, tmp_path, exact_shape=True)
    assert verdict.equal, verdict.faults
    (run,) = verdict.tested
    assert run.trial.sizes["hidden"] == 24 and run.trial.layers == ["layers.0", "layers.1"] and not verdict.shrunk
    # 6 ranks, 3 steps, 2 micro-batches of 6 sequences, of which each rank has a third; 12 tokens, 2 choices, 2 layers
    assert run.comparison.decisions.choices == 6 * 3 * 2 * 2 * 12 * 2 * 2
    assert "at the plan's own sizes, with all its layers and micro-batches" in statement(verdict)


def test_an_imported_module_at_its_own_sizes() -> None:
    plan = read_plan(ROOT / "examples" / "mixer_moe.plan")
    verdict = verify(plan, compile_plan(plan), exact_shape=True)
    assert verdict.equal, verdict.faults
    assert verdict.tested[0].trial.sizes["width"] == 64 and (verdict.tested[0].comparison.decisions.choices or 0) > 0


def test_what_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tmp_path / "test.plan"
    plan.write_text(RAGGED, encoding="utf-8")
    program = compile_plan(read_plan(plan))
    needed = memory.least_bytes(program)
    weights = 2 * 40 * 24 + 24 + 2 * (4 * 24 * 24 + 2 * 24 + 6 * 24 + 2 * 6 * 10 * 24)
    assert needed > 4 * 8 * weights * 2  # the reference, and more than one copy over the ranks
    monkeypatch.setattr(memory, "free_bytes", lambda: needed - 1)
    with pytest.raises(PlanError) as caught:
        verify(program.plan, program, exact_shape=True)
    assert caught.value.diagnostics[0].code == "E117"


def test_as_processes(tmp_path: Path) -> None:
    verdict = proved(RAGGED, tmp_path, torchrun=True)
    assert verdict.equal, verdict.faults
    one, many = verdict.tested
    assert (one.processes, many.processes) == (1, 6)
    assert one.comparison.decisions.choices == many.comparison.decisions.choices
    assert max(many.comparison.errors.values()) < 1e-9


def test_choices_of_experts_are_compared_exactly(tmp_path: Path) -> None:
    path = tmp_path / "test.plan"
    path.write_text(RAGGED, encoding="utf-8")
    plan = read_plan(path)
    program = compile_plan(plan)
    build = tmp_path / "build"
    files = emit(program, output=build)
    text = files["stage_0.py"]
    assert "before, CAPACITY)" in text
    write_folder(build, files | {"stage_0.py": text.replace("before, CAPACITY)", "before, CAPACITY - 1)")})
    verdict = verify(plan, program, build)
    assert not verdict.equal
    (said,) = verdict.tested[0].comparison.decisions.faults
    assert (
        said.startswith("layers.0 on rank ")
        and ", step 1, micro-batch 0: sequence " in said
        and "dropped and in the unsharded model" in said
    )

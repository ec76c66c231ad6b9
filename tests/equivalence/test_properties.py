"""What holds of every program: corners of routing, and schedules that change no bit."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.compiler.emit import emit
from moec.compiler.pipeline import compile_plan
from moec.compiler.verify import verify
from moec.compiler.verify.run_ranks import Outcome, Setting, run_all, written
from moec.compiler.verify.shrink import shrink
from moec.dsl import read_plan
from moec.runtime.routing import PER_MICROBATCH, PER_SEQUENCE, collect, dispatch, route

ROOT = Path(__file__).resolve().parents[2]

PLAN = """
model corner = python "routed:Routed" {{
  width = 10   inner = 6   layers = 2   rows = 8   experts = {experts}   top_k = {top_k}   slack = {slack}
  group = "{group}"
  small {{ width = 14   inner = 9   rows = 12 }}
  inputs {{ x = float[batch, rows, width]   label = int[batch] < 5 }}
  weights {{ "*.up" [experts, inner, _]   "*.down" [experts, _, inner] }}
}}
mesh {{ {mesh} }}
shard {{ {shard} }}
schedule gpipe {{ batch = 24   accumulate = 2 }}
train {{ lr = 1e-2 }}
"""

MESHES = {
    "an expert a rank": ("ep = 4   tp = 3", "batch, experts over ep   inner over tp"),
    "ranks without a row": ("dp = 3   ep = 4", "batch over dp   experts over ep"),
    "experts whole": ("dp = 3   r = 2", "batch over dp   rows over r"),
}


CORNERS = [
    (top_k, slack, group)
    for group in (PER_SEQUENCE, PER_MICROBATCH)
    for top_k, slack in ((1, 0), (1, 1), (2, 3), (4, 0), (4, 4))
]


@pytest.mark.parametrize(("number", "corner"), [*enumerate(CORNERS)])
def test_all_tokens_to_the_same_experts(number: int, corner: tuple[int, int, str], tmp_path: Path) -> None:
    """Each corner on one of the meshes."""
    equal_in(corner, *[*MESHES.values()][number % len(MESHES)], tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("corner", CORNERS)
@pytest.mark.parametrize("mesh, shard", MESHES.values(), ids=MESHES)
def test_all_tokens_on_all_meshes(mesh: str, shard: str, corner: tuple[int, int, str], tmp_path: Path) -> None:
    equal_in(corner, mesh, shard, tmp_path)


def equal_in(corner: tuple[int, int, str], mesh: str, shard: str, tmp_path: Path) -> None:
    top_k, slack, group = corner
    path = tmp_path / "corner.plan"
    (tmp_path / "routed.py").write_text((Path(__file__).parent / "routed.py").read_text())
    path.write_text(PLAN.format(mesh=mesh, shard=shard, top_k=top_k, slack=slack, group=group, experts=4))
    plan = read_plan(path)
    verdict = verify(plan, compile_plan(plan))
    assert verdict.equal, verdict.faults
    assert (verdict.tested[0].comparison.decisions.choices or 0) > 0


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5)),
    top_k=st.integers(1, 3),
    group=st.sampled_from([PER_SEQUENCE, PER_MICROBATCH]),
    seed=st.integers(0, 99),
)
def test_identity_experts_give_every_token_back(shape: tuple[int, int, int], top_k: int, group: str, seed: int) -> None:
    batch, tokens, more = shape
    experts = top_k + more - 1
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, tokens, 5, dtype=torch.float64, generator=generator)
    logits = torch.randn(batch, tokens, experts, dtype=torch.float64, generator=generator)
    prob, expert, place = route(logits, top_k, None, group, softmax_first=False)
    rows = dispatch(x, expert, place, experts, None, group)
    assert int((rows != 0).any(-1).sum()) == batch * tokens * top_k  # every choice has a row of its own
    torch.testing.assert_close(collect(rows, prob, expert, place, group), x, rtol=1e-14, atol=1e-14)


def outcomes(plan_file: Path, *overrides: str) -> list[Outcome]:
    program = compile_plan(read_plan(plan_file, list(overrides)))
    trial = shrink(program, program.plan.schedule.accumulate)
    with written(emit(trial.program, trial.sizing, double=True)) as folder:
        return run_all(Setting.of(folder), trial.units, edited=False)


@pytest.mark.parametrize("plan", ["examples/tiny_moe.plan", "tests/equivalence/plans/uneven_stages.plan"])
def test_schedules_change_no_bit(plan: str) -> None:
    for one, other in zip(outcomes(ROOT / plan, "schedule=gpipe"), outcomes(ROOT / plan, "schedule=1f1b"), strict=True):
        assert one.losses == other.losses
        assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
        for mine, true in zip(one.gradients, other.gradients, strict=True):
            assert mine and all(torch.equal(value, true[name]) for name, value in mine.items())

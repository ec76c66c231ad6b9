"""Stages are cut as evenly as can be: held against all ways to cut."""

from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.compiler.pipeline import compile_plan
from moec.compiler.program import Program
from moec.dsl import read_plan

PLAN = """
model m {{
  layers = {layers}   hidden = 24   heads = 4   vocab = {vocab}   seq = 12   ffn = {ffn}
  experts {{ count = 4   hidden = 36   top_k = 1   every = {every} }}
}}
mesh {{ pp = {stages}   dp = 2 }}
shard {{ layers over pp   batch over dp }}
schedule gpipe {{ batch = 12   accumulate = 6 }}
"""


def compiled(folder: Path, **numbers: int) -> Program:
    path = folder / "test.plan"
    path.write_text(PLAN.format(**numbers), encoding="utf-8")
    return compile_plan(read_plan(path))


def costs_of(program: Program) -> list[float]:
    costs = [float(program.sizes.value(program.units[call.unit].cost, 0)) for call in program.calls]
    return [cost + max(costs) * 1e-6 + 1.0 for cost in costs]


def largest(costs: list[float], cuts: tuple[int, ...]) -> tuple[float, float]:
    stages = [sum(costs[begin:end]) for begin, end in pairwise((0, *cuts, len(costs)))]
    return max(stages), sum(stage * stage for stage in stages)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    stages=st.integers(2, 4),
    more=st.integers(0, 5),
    vocab=st.sampled_from([16, 400, 4000]),
    ffn=st.sampled_from([8, 500]),
    every=st.integers(2, 3),
)
def test_no_other_cut_is_more_even(folder: Path, stages: int, more: int, vocab: int, ffn: int, every: int) -> None:
    program = compiled(folder, layers=stages + more, vocab=vocab, ffn=ffn, every=every, stages=stages)
    costs = costs_of(program)
    ends = [len(stage.calls) for stage in program.stages]
    mine = tuple(sum(ends[: n + 1]) for n in range(stages - 1))
    places = [n for n, call in enumerate(program.calls) if call.repeated][1:]
    best = min(largest(costs, cuts) for cuts in combinations(places, stages - 1))
    assert largest(costs, mine) == pytest.approx(best, rel=1e-12)

"""Stages are cut as evenly as can be, held against all ways to cut, by what the units weigh."""

from itertools import accumulate, combinations, pairwise
from pathlib import Path

import pytest
from compiled import compiled
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.compiler.cut_evenly import cut_evenly
from moec.compiler.pipeline import compile_plan
from moec.compiler.program import Program
from moec.compiler.weigh_units import weigh_units
from moec.dsl import read_plan

EXAMPLES = Path(__file__).parents[2] / "examples"

PLAN = """
model m {{
  layers = {layers}   hidden = 24   heads = 4   vocab = {vocab}   seq = 12   ffn = {ffn}
  {experts}
}}
mesh {{ {mesh} }}
shard {{ {shard} }}
schedule gpipe {{ batch = 12   accumulate = 2 }}
"""


def program_of(folder: Path, mesh: str, shard: str, every: int = 0, **numbers: int) -> Program:
    experts = f"experts {{ count = 4   hidden = 36   top_k = 2   every = {every} }}" if every else ""
    path = folder / "test.plan"
    path.write_text(PLAN.format(mesh=mesh, shard=shard, experts=experts, **numbers), encoding="utf-8")
    return compile_plan(read_plan(path))


def evenness(weights: list[float], cuts: tuple[int, ...]) -> tuple[float, float]:
    pieces = [sum(weights[begin:end]) for begin, end in pairwise((0, *cuts, len(weights)))]
    return max(pieces), sum(piece * piece for piece in pieces)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(runs=st.lists(st.lists(st.integers(0, 1000), min_size=1, max_size=3), min_size=1, max_size=9), data=st.data())
def test_no_other_cut_is_more_even(runs: list[list[int]], data: st.DataObject) -> None:
    """Runs of weights, of which each begins where a piece may begin."""
    weights = [float(weight) for run in runs for weight in run]
    places = [*accumulate(len(run) for run in runs)][:-1]
    count = data.draw(st.integers(1, len(runs)))
    cuts = cut_evenly(weights, places, count)
    best = min(evenness(weights, cuts) for cuts in combinations(places, count - 1))
    assert evenness(weights, cuts) == pytest.approx(best, rel=1e-12) and set(cuts) <= set(places)


def test_of_cuts_that_are_as_good_the_first() -> None:
    assert cut_evenly([1.0] * 6, range(1, 6), 4) == (1, 2, 4)


def weights_on_one_rank(folder: Path, **numbers: int) -> dict[str, float]:
    return weigh_units(program_of(folder, "dp = 1", "batch over dp", **numbers))


def test_products_weigh_what_they_are_and_a_look_up_nothing(tmp_path: Path) -> None:
    """Counted by hand: three times the products of a forward, of which attention's are half under the causal mask."""
    weights = weights_on_one_rank(tmp_path, layers=4, vocab=400, ffn=60, every=2)
    tokens, hidden, seq = 6 * 12, 24, 12
    attention = 4 * 2 * tokens * hidden * hidden + 2 * tokens * seq * hidden
    dense = 2 * 2 * tokens * hidden * 60
    experts = 2 * tokens * hidden * 4 + 2 * (2 * tokens) * 2 * hidden * 36  # the router; two choices of each token
    head = 2 * tokens * hidden * 400
    assert sorted(weights.values()) == sorted(
        3.0 * flops for flops in (0, attention + dense, attention + experts, head)
    )


def test_ranks_weigh_their_own_part_and_what_they_send(tmp_path: Path) -> None:
    sizes = {"layers": 4, "vocab": 400, "ffn": 60}
    alone = weights_on_one_rank(tmp_path, **sizes)
    split = weigh_units(program_of(tmp_path, "tp = 2", "heads, ffn, vocab over tp", **sizes))
    activations = 6 * 12 * 24 * 2  # bytes, in half precision; a ring of two ranks sends each of them once a sum
    assert split["layer"] - alone["layer"] / 2 == pytest.approx(2000 * 4 * activations)


@pytest.mark.parametrize("mesh", ["dp = 2", "ep = 2"])
def test_experts_weigh_the_rows_that_are_chosen(mesh: str, tmp_path: Path) -> None:
    """Whether rows stay or travel: of the products each of two ranks has half."""
    axis = mesh.partition(" ")[0]
    shard = f"batch over {axis}" if axis == "dp" else f"batch, experts over {axis}"
    program = program_of(tmp_path, mesh, shard, layers=2, vocab=16, ffn=8, every=1)
    alone = weights_on_one_rank(tmp_path, layers=2, vocab=16, ffn=8, every=1)
    more = weigh_units(program)["layer"] - alone["layer"] / 2
    assert more >= 0 and (more > 0) == (axis == "ep")


def test_the_flagship_has_as_many_layers_on_every_stage() -> None:
    stages = compiled(EXAMPLES / "30b_moe.plan").stages
    assert [sum(call.repeated for call in stage.calls) for stage in stages] == [4, 4, 4, 4]


def test_a_heavy_head_has_fewer_layers_before_it(tmp_path: Path) -> None:
    program = program_of(tmp_path, "pp = 3", "layers over pp", layers=9, vocab=4000, ffn=500)
    assert [sum(call.repeated for call in stage.calls) for stage in program.stages] == [4, 4, 1]

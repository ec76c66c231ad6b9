"""A fold that does not fit is answered with meshes, each of which the whole plan can be read with."""

import random
import re
from itertools import product

import pytest

from moec.dsl import PlanError

PLAN = """
model m {{
  layers = 4  hidden = 96  heads = {heads}  vocab = 256  seq = 64
  experts {{ count = {experts}  hidden = 96  top_k = 2 }}
}}
mesh {{ pp = 2  tp = {tp}  dp = {dp}  ep = {ep} over dp, tp }}
shard {{ layers over pp  batch over dp  heads, vocab over tp  experts over ep }}
schedule gpipe {{ batch = {batch}  accumulate = 2 }}
"""


def offered(read, text: str) -> list[list[str]]:
    """The overrides of each offer, in the order they are told; none if the plan can be read."""
    try:
        read(text)
    except PlanError as fault:
        told = [line for diagnostic in fault.diagnostics for line in diagnostic.help]
        return [re.findall(r"--set (\S+?)(?=[ `])", line) for line in told if "`--set mesh." in line]
    return []


def plan(tp: int = 4, dp: int = 2, ep: int = 16, heads: int = 8, experts: int = 16, batch: int = 32) -> str:
    return PLAN.format(tp=tp, dp=dp, ep=ep, heads=heads, experts=experts, batch=batch)


def test_one_axis_first_and_of_these_the_same_ranks(read) -> None:
    assert offered(read, plan()) == [["mesh.ep=8"], ["mesh.tp=8"], ["mesh.dp=4"]]


def test_what_the_dims_do_not_allow_is_not_offered(read) -> None:
    """4 heads do not go over 8 ranks, nor 12 experts over 8, nor a micro-batch of 6 over 4."""
    assert offered(read, plan(heads=4, experts=12, batch=12)) == [["mesh.ep=4"]]


def test_two_axes_where_one_does_not_do(read) -> None:
    offers = offered(read, plan(tp=3, dp=2, ep=5, heads=8, experts=16))
    assert offers and all(len(sets) == 2 for sets in offers)


@pytest.mark.parametrize("seed", range(4))
def test_every_offer_works(read, codes, seed: int) -> None:
    draw, told = random.Random(seed), 0
    meshes = list(
        product((2, 3, 4, 6, 8), (2, 3, 4, 6), (4, 5, 6, 8, 9, 12, 16, 32), (4, 6, 8, 12, 24), (8, 12, 24, 48))
    )
    for tp, dp, ep, heads, experts in draw.sample(meshes, 10):
        text = plan(tp, dp, ep, heads, experts, batch=48)
        for sets in offered(read, text):
            told += 1
            assert codes(text, *sets) == [], sets
    assert told > 3

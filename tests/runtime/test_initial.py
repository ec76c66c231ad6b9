"""Initial values: the same element is the same number, whoever makes it."""

import hashlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.runtime.initial import Initial


def whole(name, shape, init, seed=0):
    return Initial(seed)(name, shape, init, [slice(0, n) for n in shape])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_slice_is_the_slice_of_the_whole(data):
    shape = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    init = data.draw(st.sampled_from(["normal 0.02", "uniform 0.5", "ones", "zeros"]))
    where = []
    for n in shape:
        start = data.draw(st.integers(0, n))
        where.append(slice(start, data.draw(st.integers(start, n))))
    assert Initial(3)("w", shape, init, where).equal(whole("w", shape, init, 3)[tuple(where)])


def test_a_large_weight_in_pieces():
    shape = (700, 900)
    assert Initial(3)("w", shape, "normal 1", [slice(350, 700), slice(0, 450)]).equal(
        whole("w", shape, "normal 1", 3)[350:, :450]
    )


def test_seed_name_and_index_matter_and_nothing_else():
    values = [whole(name, (50,), "normal 1", seed) for name in ("a", "b") for seed in (0, 1)]
    assert len({tuple(x.tolist()) for x in values}) == 4
    assert whole("a", (5, 10), "normal 1").flatten().equal(whole("a", (50,), "normal 1"))
    assert values[0].unique().numel() == 50


def mixed(counter):
    """splitmix64 on plain integers."""
    z = (counter + 1) * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def test_the_definition():
    key = int.from_bytes(hashlib.blake2b(b"5 layers.0.wq.weight", digest_size=8).digest(), "little")
    u, v = (mixed(key ^ counter) / 2**64 for counter in (2 * 17, 2 * 17 + 1))
    expected = 0.02 * math.sqrt(-2 * math.log(1 - u)) * math.cos(2 * math.pi * v)
    assert whole("layers.0.wq.weight", (4, 5), "normal 0.02", 5)[3, 2] == pytest.approx(expected, rel=1e-6)
    u = mixed(key ^ 17) / 2**64
    assert whole("layers.0.wq.weight", (4, 5), "uniform 3", 5)[3, 2] == pytest.approx(6 * u - 3, rel=1e-12)
    assert mixed(0) == 0xE220A8397B1DCDAF  # the first output of the published generator, from state 0


def test_distributions():
    normal, uniform = whole("w", (200_000,), "normal 0.02"), whole("w", (200_000,), "uniform 0.5")
    assert abs(normal.mean()) < 2e-4 and abs(normal.std() / 0.02 - 1) < 0.01
    assert abs((normal / 0.02).pow(4).mean() - 3) < 0.1
    assert abs(uniform.mean()) < 5e-3 and uniform.min() < -0.499 and 0.499 < uniform.max() <= 0.5
    pairs = torch.corrcoef(torch.stack((normal[:-1], normal[1:])))
    assert abs(pairs[0, 1]) < 0.01


@pytest.mark.parametrize("init", ["gaussian 1", "normal", "ones 3", "normal 1 2"])
def test_an_unknown_init_is_named(init):
    with pytest.raises(ValueError, match=f"initial value `{init}` of w: not normal STD"):
        whole("w", (2,), init)

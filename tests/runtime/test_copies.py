"""Weights that several ranks have are compared over them, bit for bit."""

import pytest
import torch
import torch.distributed as dist

from moec.runtime.copies import Copies, checksum


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_checksum_sees_any_bit(dtype):
    x = torch.randn(1000, dtype=torch.float64).to(dtype)
    before = checksum(x)
    assert checksum(x.clone().view(10, 100)).equal(before)
    bits = {8: torch.int64, 4: torch.int32, 2: torch.int16}[x.element_size()]
    for bit in range(8 * x.element_size() - 1):
        changed = x.clone()
        changed.view(bits)[17] ^= 1 << bit
        assert not checksum(changed).equal(before)
    up_and_down = x.clone()
    up_and_down.view(bits)[3] += 1
    up_and_down.view(bits)[4] -= 1
    assert not checksum(up_and_down).equal(before), "changes do not cancel out"


def compared(made, drift):
    """What the ranks find after the second step, before which drift(rank, shards) may have changed weights."""
    store = dist.HashStore()

    def program(rank, run):
        copies = Copies(run, store)
        rank.step(run)
        assert copies.compare() is None
        rank.step(run)
        drift(rank.RANK, run.weights.shards)
        return copies, copies.compare()

    found = made.simulate(program)
    assert store.num_keys() < 40, "what was compared is not kept"
    return [copies.difference(key) for copies, key in found if key is not None]


def test_copies_that_are_the_same_agree(tiny):
    assert compared(tiny(2, 2), lambda rank, shards: None) == []


@pytest.mark.parametrize(
    ("culprit", "weight", "holders"),
    [
        (1, "layers.0.norm.weight", (0, 1, 2, 3)),
        (6, "layers.1.up.weight", (4, 6)),
        (2, "embed.weight", tuple(range(8))),
    ],
)
def test_one_that_has_drifted_is_named_with_its_rank(tiny, culprit, weight, holders):
    def drift(rank, shards):
        if rank == culprit:
            value = shards[weight].value.detach()
            value.view(-1)[1] = torch.nextafter(value.view(-1)[1], torch.tensor(9.0, dtype=value.dtype))

    found = compared(tiny(2, 2), drift)
    assert found and all(difference.weights == (weight,) for difference in found)
    for difference in found:
        assert sorted(difference.odd + difference.others) == list(holders)
        assert difference.odd == (culprit,) or len(holders) == 2

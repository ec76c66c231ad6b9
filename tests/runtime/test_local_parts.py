"""What a rank takes of rows and heads that all have, against the whole, forward and backward."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.runtime.heads import repeat_for
from moec.runtime.local_experts import own_rows, place_rows
from moec.runtime.simulated import simulate


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_rows_of_my_experts_and_back(data):
    world, local = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    counts = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=world * local, max_size=world * local)))
    whole = torch.randn(int(counts.sum()), 2, 3, dtype=torch.float64)
    owner = torch.arange(world * local).repeat_interleave(counts) // local

    def program(rank):
        rows = whole.clone().requires_grad_()
        mine, mine_counts = own_rows(rows, counts, "ep")
        assert mine_counts.equal(counts[rank * local : (rank + 1) * local]) and mine.equal(whole[owner == rank])
        placed = place_rows(mine * 2, counts, "ep")
        placed.backward(whole)
        assert placed.shape == whole.shape
        return placed.detach(), rows.grad

    ranks = simulate(world, program, lambda rank: {"ep": tuple(range(world))})
    torch.testing.assert_close(sum(placed for placed, _ in ranks), 2 * whole)
    torch.testing.assert_close(sum(gradient for _, gradient in ranks), 2 * whole)


@pytest.mark.parametrize(("heads", "kv_heads"), [(12, 12), (12, 6), (12, 4), (12, 1)])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_heads_that_share_a_key(heads, kv_heads, world):
    kv = torch.randn(2, kv_heads, 5, 3, dtype=torch.float64)
    groups = heads // kv_heads
    whole = kv.clone().requires_grad_()
    expected = whole.repeat_interleave(groups, 1)
    gradient = torch.randn(expected.shape, dtype=torch.float64)
    expected.backward(gradient)

    def program(rank):
        mine = kv.clone().requires_grad_()
        part = repeat_for(mine, "tp", heads // world, groups)
        part.backward(gradient.chunk(world, 1)[rank])
        return part.detach(), mine.grad

    ranks = simulate(world, program, lambda rank: {"tp": tuple(range(world))})
    assert torch.cat([part for part, _ in ranks], 1).equal(expected)
    torch.testing.assert_close(sum(gradient for _, gradient in ranks), whole.grad)

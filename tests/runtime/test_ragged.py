"""Rows to their experts and back, against lists of rows that say where they came from."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moec.runtime import (
    all_reduce,
    exchange_counts,
    gather_counts,
    gather_rows,
    return_rows,
    scatter_rows,
    send_rows,
)
from moec.runtime.simulated import simulate


def exchange(counts):
    """What each rank gets, and what comes back, when rank r has counts[r][e] rows for expert e."""
    world = len(counts)

    def program(rank):
        mine = torch.tensor(counts[rank], dtype=torch.int64)
        labels = [[rank, expert, n] for expert, many in enumerate(counts[rank]) for n in range(many)]
        rows = torch.tensor(labels, dtype=torch.float64).reshape(-1, 3).requires_grad_()
        arrivals = exchange_counts(mine, "ep")
        arrived = send_rows(rows, mine, arrivals, "ep")
        back = return_rows(arrived, mine, arrivals, "ep")
        assert arrived.requires_grad and back.requires_grad and back.equal(rows)
        assert gather_counts(mine, "ep").tolist() == [list(row) for row in counts]
        return arrivals, arrived.tolist()

    return simulate(world, program, lambda rank: {"ep": tuple(range(world))})


def check(counts):
    world, local = len(counts), len(counts[0]) // len(counts)
    for rank, (arrivals, arrived) in enumerate(exchange(counts)):
        experts = range(rank * local, (rank + 1) * local)
        assert arrivals.tolist() == [[counts[source][expert] for expert in experts] for source in range(world)]
        expected = [
            [source, expert, n] for expert in experts for source in range(world) for n in range(counts[source][expert])
        ]
        assert arrived == expected


@pytest.mark.parametrize(
    "counts",
    [
        [[2, 1, 3, 0], [0, 4, 1, 1]],
        [[0, 0, 0, 0], [1, 2, 3, 4]],  # a rank without rows
        [[1, 2, 0, 0], [3, 1, 0, 0]],  # a rank whose experts get none
        [[0, 0], [0, 0]],
        [[3, 0, 2]],  # one rank
        [[1, 0, 5], [2, 2, 0], [0, 0, 1]],  # one expert each
    ],
)
def test_corner_cases(counts):
    check(counts)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_counts(data):
    world, local = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    row = st.lists(st.integers(0, 3), min_size=world * local, max_size=world * local)
    check(data.draw(st.lists(row, min_size=world, max_size=world)))


def test_return_rows_is_the_transpose_of_send_rows():
    counts = [[2, 1, 3, 0], [0, 4, 1, 1]]

    def program(rank):
        generator = torch.Generator().manual_seed(rank)
        mine = torch.tensor(counts[rank])
        arrivals = exchange_counts(mine, "ep")
        x = torch.randn(int(mine.sum()), 5, generator=generator, dtype=torch.float64)
        y = torch.randn(int(arrivals.sum()), 5, generator=generator, dtype=torch.float64)
        there = (send_rows(x, mine, arrivals, "ep") * y).sum()
        back = (x * return_rows(y, mine, arrivals, "ep")).sum()
        return all_reduce(there, "ep"), all_reduce(back, "ep")

    for there, back in simulate(2, program, lambda rank: {"ep": (0, 1)}):
        torch.testing.assert_close(there, back)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_gather_rows_and_its_transpose(data):
    world, experts = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    row = st.lists(st.integers(0, 3), min_size=experts, max_size=experts)
    counts = data.draw(st.lists(row, min_size=world, max_size=world))

    def program(rank):
        everyone = gather_counts(torch.tensor(counts[rank]), "etp")
        labels = [[rank, expert, n] for expert, many in enumerate(counts[rank]) for n in range(many)]
        rows = torch.tensor(labels, dtype=torch.float64).reshape(-1, 3).requires_grad_()
        gathered = gather_rows(rows, everyone, "etp")
        parts = (gathered.detach() * (rank + 1)).requires_grad_()
        summed = scatter_rows(parts, everyone, "etp")
        assert gathered.requires_grad and summed.requires_grad and gathered.is_leaf and summed.is_leaf
        torch.testing.assert_close(summed, rows * sum(range(1, world + 1)))
        return gathered.tolist()

    expected = [[r, expert, n] for expert in range(experts) for r in range(world) for n in range(counts[r][expert])]
    assert simulate(world, program, lambda rank: {"etp": tuple(range(world))}) == [expected] * world


def test_rows_of_any_shape_are_gathered():
    def program(rank):
        everyone = gather_counts(torch.tensor([rank, 1]), "etp")
        gathered = gather_rows(torch.full((rank + 1, 2, 2), float(rank)), everyone, "etp")
        return gathered[:, 1, 1].tolist(), gather_rows(torch.full((rank + 1,), rank), everyone, "etp").tolist()

    assert simulate(2, program, lambda rank: {"etp": (0, 1)}) == [([1.0, 0.0, 1.0], [1, 0, 1])] * 2

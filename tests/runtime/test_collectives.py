"""Every collective, all ranks in one process, against what its definition says of the whole tensors."""

import pytest
import torch

from moec.runtime import collectives as c
from moec.runtime.simulated import simulate

# A mesh of 2 x 3: `slow` are the columns, `fast` the rows, `turned` all ranks with the fast axis as the major one.
WORLD = 6


def groups(rank):
    row, column = divmod(rank, 3)
    return {
        "slow": (column, column + 3),
        "fast": (3 * row, 3 * row + 1, 3 * row + 2),
        "turned": (0, 3, 1, 4, 2, 5),
        "alone": (rank,),
    }


def everyone(shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(WORLD, *shape, generator=generator, dtype=torch.float64)


def run(shape, call):
    """call(x of this rank, rank) on all ranks, and the x of all."""
    whole = everyone(shape)
    return simulate(WORLD, lambda rank: call(whole[rank].clone(), rank), groups), whole


def members(rank, axes):
    return groups(rank)[axes]


AXES = ("slow", "fast", "turned")


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("start", [False, True])
def test_all_reduce(axes, start):
    def call(x, rank):
        return c.wait(c.all_reduce_start(x, axes)) if start else c.all_reduce(x, axes)

    results, whole = run((4, 5), call)
    for rank, result in enumerate(results):
        torch.testing.assert_close(result, sum(whole[m] for m in members(rank, axes)))


@pytest.mark.parametrize("other", [torch.float64, torch.float32])
def test_all_reduce_together(other):
    """In one message where they are alike, or in several: each has its own shape, dtype and gradient."""

    def call(x, rank):
        return c.all_reduce_together((x.requires_grad_(), x.detach()[0].to(other).t()), "turned")

    results, whole = run((4, 5, 3), call)
    for rank, (first, second) in enumerate(results):
        summands = [whole[m] for m in members(rank, "turned")]
        torch.testing.assert_close(first, sum(summands))
        torch.testing.assert_close(second, sum(x[0].to(other).t() for x in summands).to(other))
        assert first.requires_grad and not second.requires_grad


@pytest.mark.parametrize("start", [False, True])
def test_all_reduce_max(start):
    def call(x, rank):
        return c.wait(c.all_reduce_max_start(x, "turned")) if start else c.all_reduce_max(x, "turned")

    results, whole = run((4, 5), call)
    assert all(result.equal(whole.amax(0)) for result in results)


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("start", [False, True])
def test_all_gather(axes, dim, start):
    def call(x, rank):
        return c.wait(c.all_gather_start(x, axes, dim)) if start else c.all_gather(x, axes, dim)

    results, whole = run((4, 5, 2), call)
    for rank, result in enumerate(results):
        assert result.equal(torch.cat([whole[m] for m in members(rank, axes)], dim))


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("start", [False, True])
def test_reduce_scatter(axes, dim, start):
    def call(x, rank):
        return c.wait(c.reduce_scatter_start(x, axes, dim)) if start else c.reduce_scatter(x, axes, dim)

    results, whole = run((6, 12, 18), call)
    for rank, result in enumerate(results):
        ranks = members(rank, axes)
        total = sum(whole[m] for m in ranks)
        torch.testing.assert_close(result, total.chunk(len(ranks), dim)[ranks.index(rank)])


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize(("split", "join"), [(0, 1), (1, 0), (2, 1), (0, -1), (1, 1)])
@pytest.mark.parametrize("start", [False, True])
def test_all_to_all(axes, split, join, start):
    def call(x, rank):
        if start:
            return c.wait(c.all_to_all_start(x, axes, split=split, join=join))
        return c.all_to_all(x, axes, split=split, join=join)

    results, whole = run((6, 12, 18), call)
    for rank, result in enumerate(results):
        ranks = members(rank, axes)
        blocks = [whole[m].chunk(len(ranks), split)[ranks.index(rank)] for m in ranks]
        assert result.equal(torch.cat(blocks, join))


def test_all_to_all_back_is_the_identity():
    def call(x, rank):
        return c.all_to_all(c.all_to_all(x, "fast", split=0, join=1), "fast", split=1, join=0)

    results, whole = run((6, 4, 5), call)
    assert all(result.equal(x) for result, x in zip(results, whole, strict=True))


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("dim", [0, 1])
def test_take_spread_and_first(axes, dim):
    def call(x, rank):
        mine = c.take(x, axes, dim)
        return mine, c.spread(mine, axes, dim), c.first(x, axes), c.coordinate(axes), c.group_size(axes)

    results, whole = run((6, 12), call)
    for rank, (mine, spread, first, coordinate, size) in enumerate(results):
        ranks = members(rank, axes)
        assert (coordinate, size) == (ranks.index(rank), len(ranks))
        assert mine.equal(whole[rank].chunk(size, dim)[coordinate])
        parts = list(torch.zeros_like(whole[rank]).chunk(size, dim))
        parts[coordinate] = mine
        assert spread.equal(torch.cat(parts, dim))
        assert first.equal(whole[rank] if coordinate == 0 else torch.zeros_like(whole[rank]))


CALLS = {
    "all_reduce": lambda x, axes: c.all_reduce(x, axes),
    "all_reduce_max": lambda x, axes: c.all_reduce_max(x, axes),
    "all_gather": lambda x, axes: c.all_gather(x, axes, 1),
    "reduce_scatter": lambda x, axes: c.reduce_scatter(x, axes, 1),
    "all_to_all": lambda x, axes: c.all_to_all(x, axes, 0, 1),
    "take": lambda x, axes: c.take(x, axes, 1),
    "spread": lambda x, axes: c.spread(x, axes, 1),
    "first": lambda x, axes: c.first(x, axes),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("axes", ["fast", "alone"])
@pytest.mark.parametrize("grad", [False, True])
def test_a_result_carries_a_gradient_where_its_operand_does_and_no_history(call, axes, grad):
    def program(rank):
        activation = torch.ones(6, 6, requires_grad=grad) * 1.0
        weight = torch.nn.Parameter(torch.ones(6, 6), requires_grad=grad)
        of_activation, of_weight = call(activation.detach().requires_grad_(grad), axes), call(weight, axes)
        assert of_activation.requires_grad is of_weight.requires_grad is grad
        assert of_activation.is_leaf and of_weight.is_leaf
        assert type(of_weight) is torch.Tensor, "a weight's gradient would go into the weight"

    simulate(WORLD, program, groups)


def test_alone_is_the_identity_and_no_call():
    def program(rank):
        x = torch.ones(2, 3)
        assert c.all_reduce(x, "alone") is x and c.all_gather(x, "alone", 1) is x
        assert c.all_to_all(x, "alone", 0, 1) is x and c.reduce_scatter(x, "alone", 0) is x
        assert c.all_reduce_max(x, "alone") is x and c.spread(x, "alone", 0) is x and c.first(x, "alone") is x

    simulate(WORLD, lambda rank: program(rank) if rank == 0 else None, groups)


def test_results_belong_to_their_rank():
    def program(rank):
        results = [c.all_reduce(torch.ones(6), "world"), c.all_gather(torch.ones(6), "world", 0)]
        results += [c.reduce_scatter(torch.ones(6), "world", 0), c.all_to_all(torch.ones(6), "world", 0, 0)]
        for result in results:
            result += rank
        c.all_reduce(torch.ones(1), "world")
        return [result[0].item() - rank for result in results]

    assert simulate(WORLD, program, groups) == [[6.0, 1.0, 6.0, 1.0]] * WORLD


def test_what_does_not_divide_is_said_with_the_shape():
    with pytest.raises(ValueError, match=r"dim 1 of a tensor of shape \[6, 4\] cannot be cut into 3 equal blocks"):
        run((6, 4), lambda x, rank: c.reduce_scatter(x, "fast", 1))

"""Embedding and cross-entropy over split classes, all ranks in one process, against torch's on the whole."""

import pytest
import torch
import torch.nn.functional as F

from moec.runtime import all_reduce, all_reduce_max
from moec.runtime import vocabulary as v
from moec.runtime.simulated import simulate
from moec.runtime.tape import Tape


def groups(rank, world):
    return {"tp": tuple(range(world))}


def made(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def padded_slice(x, rank, world, dim):
    """This rank's slice of dim, padded with numbers that must not matter."""
    n = -(-x.shape[dim] // world)
    shape = list(x.shape)
    shape[dim] = n * world - x.shape[dim]
    return torch.cat([x, x.new_full(shape, 1e3)], dim).narrow(dim, rank * n, n).clone()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_embedding(world):
    table, tokens = made(7, 4).requires_grad_(), torch.tensor([[0, 6, 3], [3, 2, 6]])
    whole = F.embedding(tokens, table)
    gradient = made(2, 3, 4, seed=1)
    whole.backward(gradient)

    def program(rank):
        weight = padded_slice(table.detach(), rank, world, 0).requires_grad_()
        tape = Tape()
        x = all_reduce(tape.run(v.embed_rows, tokens, weight, "tp"), "tp")
        torch.testing.assert_close(x, whole)
        return tape.back(v.embed_rows, gradient)

    found = torch.cat(simulate(world, program, lambda rank: groups(rank, world)))
    torch.testing.assert_close(found[:7], table.grad)
    assert not found[7:].any()


def halves(logits, top, labels, axes, classes, ignore, dim):
    total = v.exponentials(logits, top, axes, classes, dim)
    return torch.stack((total, v.picked(logits, top, labels, axes, classes, ignore, dim)))


# On 4 ranks 5 classes are 2, 2, 1 and none.
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize(("shape", "dim"), [((6, 5), -1), ((6, 5), 1), ((2, 5, 3), 1), ((2, 3, 5), -1)])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("sums", [v.class_sums, halves])
def test_cross_entropy(world, shape, dim, reduction, sums):
    whole = (50 * made(*shape)).requires_grad_()
    labels = torch.randint(0, 5, whole.detach().select(dim, 0).shape, generator=torch.Generator().manual_seed(1))
    labels.view(-1)[:2] = 3
    labels.view(-1)[2] = -7
    loss = F.cross_entropy(whole.movedim(dim, 1), labels, ignore_index=-7, reduction=reduction)
    loss.backward()

    def program(rank):
        logits = padded_slice(whole.detach(), rank, world, dim).requires_grad_()
        tape = Tape()
        top = tape.run(v.highest, logits, "tp", 5, dim)
        assert not top.requires_grad and top.shape == labels.shape
        top = all_reduce_max(top, "tp")
        parts = all_reduce(tape.run(sums, logits, top, labels, "tp", 5, -7, dim), "tp")
        found = tape.run(v.cross_entropy_of_sums, parts, labels, -7, reduction)
        torch.testing.assert_close(found, loss)
        dparts = tape.back(v.cross_entropy_of_sums, torch.ones((), dtype=torch.float64))
        return tape.back(sums, dparts)

    found = torch.cat(simulate(world, program, lambda rank: groups(rank, world)), dim)
    torch.testing.assert_close(found.narrow(dim, 0, 5), whole.grad)
    assert not found.narrow(dim, 5, found.shape[dim] - 5).any()


def test_losses_one_by_one():
    whole, labels = made(4, 5), torch.tensor([0, 4, -100, 2])

    def program(rank):
        logits = padded_slice(whole, rank, 2, 1)
        top = all_reduce_max(v.highest(logits, "tp", 5), "tp")
        sums = all_reduce(v.class_sums(logits, top, labels, "tp", 5), "tp")
        torch.testing.assert_close(
            v.cross_entropy_of_sums(sums, labels, reduction="none"), F.cross_entropy(whole, labels, reduction="none")
        )
        with pytest.raises(ValueError, match="reduction is max, and neither sum, mean nor none"):
            v.cross_entropy_of_sums(sums, labels, reduction="max")

    simulate(2, program, lambda rank: groups(rank, 2))


def test_bf16_logits_are_summed_in_float32():
    whole, labels = (10 * made(64, 300)).bfloat16(), torch.arange(64) * 3

    def program(rank):
        logits = padded_slice(whole, rank, 2, 1).requires_grad_()
        top = all_reduce_max(v.highest(logits, "tp", 300), "tp")
        tape = Tape()
        sums = all_reduce(tape.run(v.class_sums, logits, top, labels, "tp", 300), "tp")
        assert top.dtype is sums.dtype is torch.float32
        assert tape.back(v.class_sums, torch.ones_like(sums)).dtype is torch.bfloat16
        return v.cross_entropy_of_sums(sums.detach(), labels)

    expected = F.cross_entropy(whole.double(), labels, reduction="sum").float()
    for loss in simulate(2, program, lambda rank: groups(rank, 2)):
        torch.testing.assert_close(loss, expected)


def test_a_second_backward_of_the_sums_is_refused():
    def program(rank):
        logits = made(3, 5).requires_grad_()
        sums = v.class_sums(logits, v.highest(logits, "tp", 5), torch.tensor([0, 1, 2]), "tp", 5)
        sums.sum().backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            sums.sum().backward()

    simulate(1, program, lambda rank: groups(rank, 1))

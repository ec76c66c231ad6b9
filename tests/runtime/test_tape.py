"""The tape of regions against autograd over the whole of it."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch.nn import Parameter

from moec.runtime import Tape, accumulate


def made(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weight(*shape, seed=0):
    value = Parameter(made(*shape, seed=seed))
    value.grad = torch.zeros_like(value)
    return value


def two_ways(x, w):
    h = torch.tanh(x @ w)
    return h, h.argmax(-1), h.detach().sum(), h * 2


def pick(h, place, twice, w):
    return F.gelu(h.gather(1, place[:, None]) + twice @ w)


def test_two_regions_as_one_graph():
    x, w, v = made(4, 3).requires_grad_(), weight(3, 5, seed=1), weight(5, 2, seed=2)
    tape = Tape()
    h, place, total, twice = tape.run(two_ways, x, w)
    y = tape.run(pick, h, place, twice, v)
    assert [t.requires_grad for t in (h, place, total, twice, y)] == [True, False, False, True, True]
    assert h.is_leaf and twice.is_leaf and y.is_leaf
    seed = made(4, 2, seed=3)
    dh, dtwice = tape.back(pick, seed)
    dx = tape.back(two_ways, dh, dtwice)
    tape.done()

    x2, w2, v2 = (t.detach().clone().requires_grad_() for t in (x, w, v))
    h, place, _, twice = two_ways(x2, w2)
    pick(h, place, twice, v2).backward(seed)
    for mine, theirs in ((dx, x2.grad), (w.grad, w2.grad), (v.grad, v2.grad)):
        torch.testing.assert_close(mine, theirs)
    assert x.grad is None


def test_gradients_of_weights_add_up_in_place():
    w = weight(3, 3)
    flat = w.grad
    for _ in range(2):
        tape = Tape()
        tape.run(torch.matmul, made(2, 3).requires_grad_(), w)
        tape.back(torch.matmul, torch.ones(2, 3, dtype=torch.float64))
    assert w.grad is flat
    torch.testing.assert_close(flat, 2 * made(2, 3).T @ torch.ones(2, 3, dtype=torch.float64))


def test_gradients_of_bf16_weights_add_up_in_float32():
    w = Parameter(torch.ones(2, dtype=torch.bfloat16))
    w.grad_dtype, w.grad = torch.float32, torch.zeros(2)
    for _ in range(257):  # bf16 counts to 256
        tape = Tape()
        tape.run(torch.mul, torch.ones(2, dtype=torch.bfloat16), w)
        assert tape.back(torch.mul, torch.ones(2, dtype=torch.bfloat16)) is None
    assert w.grad.tolist() == [257.0, 257.0]


def split(x, w):
    return x * w, x + 1


def test_none_stands_for_zeros():
    x, w = made(3).requires_grad_(), weight(3, seed=1)
    ones = torch.ones(3, dtype=torch.float64)
    tape = Tape()
    tape.run(split, x, w)
    assert tape.back(split, None, ones).equal(ones) and not w.grad.any()
    tape.run(split, x, w)
    assert tape.back(split, None, None).equal(torch.zeros_like(x))


def unused(x, y):
    return x * 2


def test_an_unused_input_has_zeros():
    x, y = made(3).requires_grad_(), made(2).requires_grad_()
    tape = Tape()
    tape.run(unused, x, y)
    dx, dy = tape.back(unused, torch.ones(3, dtype=torch.float64))
    assert dx.tolist() == [2.0] * 3 and dy.tolist() == [0.0] * 2


def same(x):
    return x


def test_a_region_may_return_its_input():
    x = made(3).requires_grad_()
    tape = Tape()
    y = tape.run(same, x)
    assert tape.back(same, torch.ones_like(y)).tolist() == [1.0] * 3 and x.grad is None


def count(ids, w):
    return F.embedding(ids, w)


def test_integer_inputs_and_no_gradient_to_return():
    w = weight(5, 2)
    tape = Tape()
    tape.run(count, torch.tensor([1, 1, 4]), w)
    assert tape.back(count, torch.ones(3, 2, dtype=torch.float64)) is None
    assert w.grad.sum(1).tolist() == [0.0, 4.0, 0.0, 0.0, 2.0]


def test_a_result_that_autograd_does_not_save_is_freed():
    results = []

    def region(x):
        y = x + 1
        results.append(weakref.ref(y))
        return y

    tape = Tape()
    tape.run(region, made(3).requires_grad_())
    assert results[0]() is None


def test_kept_values_come_back_in_the_order_of_the_regions():
    x = made(2).requires_grad_()
    tape = Tape()
    tape.keep("one")
    tape.run(same, x)
    tape.keep("a", "b")
    assert tape.kept() == ("a", "b")
    tape.back(same, torch.ones(2, dtype=torch.float64))
    assert tape.kept() == "one"
    tape.done()


def test_a_weight_gathered_or_partial_has_its_gradient_added():
    w = weight(3)
    tape = Tape()
    tape.run(torch.mul, w.detach().requires_grad_(), made(3))
    accumulate(w, tape.back(torch.mul, torch.ones(3, dtype=torch.float64)))
    torch.testing.assert_close(w.grad, made(3))


def test_what_is_out_of_order_is_said():
    x = made(2).requires_grad_()
    tape = Tape()
    tape.run(same, x)
    with pytest.raises(RuntimeError, match="backward of region `split`, but region `same` was the last to run"):
        tape.back(split, x)
    with pytest.raises(RuntimeError, match="nothing is left on the tape"):
        tape.back(same, x)
    tape.run(split, x, x)
    with pytest.raises(RuntimeError, match="`split` has 2 results that carry a gradient, but 1 gradients were given"):
        tape.back(split, x)
    tape.run(same, x)
    with pytest.raises(RuntimeError, match="asks for kept values, but region `same` was the last"):
        tape.kept()
    tape.keep(1)
    with pytest.raises(AssertionError, match="1 regions did not run backward, and keep of 1 values was"):
        tape.done()

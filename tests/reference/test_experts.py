"""The reference's routing against a loop over single tokens that follows the specification word for word."""

from fractions import Fraction
from itertools import product
from math import exp

import pytest
import torch
from torch import Tensor

from moec.compiler.reference.experts import PER_MICROBATCH, PER_SEQUENCE, Experts, ExpertSizes, choose, keep

Choice = tuple[int, float, bool]
"""An expert, its probability and whether it takes the token."""


def softmax(values: list[float]) -> list[float]:
    powers = [exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def choose_for_token(scores: list[float], top_k: int, softmax_first: bool) -> list[tuple[int, float]]:
    values = softmax(scores) if softmax_first else scores
    best = sorted(range(len(values)), key=lambda e: (-values[e], e))[:top_k]
    chosen = [values[e] for e in best]
    return list(zip(best, chosen if softmax_first else softmax(chosen), strict=True))


def route_by_token(scores: Tensor, sizes: ExpertSizes) -> list[list[list[Choice]]]:
    """Token after token, choice after choice: the routes of every position of every sequence."""
    batch, seq, _ = scores.shape
    tokens = seq if sizes.group == PER_SEQUENCE else batch * seq
    rows = sizes.capacity and sizes.capacity * sizes.top_k * tokens / sizes.count
    room = None if rows is None else max(sizes.min_capacity, -(-rows.numerator // rows.denominator))
    taken: dict[tuple[int, int], int] = {}
    routes = []
    for b, sequence in enumerate(scores.tolist()):
        routes.append([])
        for token in sequence:
            routes[-1].append([])
            for e, prob in choose_for_token(token, sizes.top_k, sizes.softmax_first):
                group = (b if sizes.group == PER_SEQUENCE else 0, e)
                earlier = taken.get(group, 0)
                routes[-1][-1].append((e, prob, room is None or earlier < room))
                taken[group] = earlier + 1
    return routes


CASES = [
    ExpertSizes(5, 3, top_k, capacity, minimum, group, gated, first)
    for top_k, capacity, minimum, group, gated, first in product(
        (1, 2, 3),
        (None, Fraction(11, 10), Fraction(1, 2)),
        (0, 2),
        (PER_SEQUENCE, PER_MICROBATCH),
        (False, True),
        (True, False),
    )
]


@pytest.mark.parametrize("sizes", CASES, ids=str)
def test_routes_as_token_by_token(sizes: ExpertSizes) -> None:
    torch.manual_seed(1)
    scores = torch.randn(3, 7, sizes.count, dtype=torch.float64)
    scores[1] = scores[1].round()  # ties, many of them
    scores[2] = 0.0
    prob, expert = choose(scores, sizes.top_k, sizes.softmax_first)
    kept = keep(expert, sizes)
    routes = route_by_token(scores, sizes)
    assert expert.tolist() == [[[e for e, _, _ in token] for token in sequence] for sequence in routes]
    assert kept.tolist() == [[[kept for _, _, kept in token] for token in sequence] for sequence in routes]
    expected = torch.tensor([[[p for _, p, _ in token] for token in sequence] for sequence in routes]).double()
    torch.testing.assert_close(prob, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("sizes", CASES, ids=str)
def test_computes_as_token_by_token(sizes: ExpertSizes) -> None:
    torch.manual_seed(2)
    layer = Experts(4, sizes).double()
    for weight in layer.parameters():
        torch.nn.init.normal_(weight)
    x = torch.randn(3, 7, 4, dtype=torch.float64)
    y, routing = layer(x)
    expected = torch.zeros_like(x)
    for b, sequence in enumerate(route_by_token(x @ layer.router.weight.T, sizes)):
        for t, token in enumerate(sequence):
            for e, prob, kept in token:
                inner = layer.up[e] @ x[b, t]
                if layer.gate is None:
                    inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
                else:
                    gate = layer.gate[e] @ x[b, t]
                    inner = gate / (1 + torch.exp(-gate)) * inner
                expected[b, t] += kept * prob * (layer.down[e] @ inner)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert routing.expert.shape == routing.kept.shape == (3, 7, sizes.top_k)


def test_capacity_is_exact() -> None:
    """In floating point 0.28 * 100 / 1 is above 28, and 1.1 * 10 is above 11."""
    assert ExpertSizes(1, 1, 1, Fraction("0.28")).rows(100) == 28
    assert ExpertSizes(1, 1, 1, Fraction("1.1")).rows(10) == 11
    assert ExpertSizes(64, 1, 2, Fraction("1.1")).rows(4096) == 141
    assert ExpertSizes(8, 1, 1, Fraction("0.1"), min_capacity=4).rows(16) == 4


def test_an_expert_without_tokens_has_gradient_zero() -> None:
    layer = Experts(4, ExpertSizes(3, 2)).double()
    for weight in layer.parameters():
        torch.nn.init.ones_(weight)  # all alike: every token takes expert 0
    layer(torch.randn(2, 5, 4, dtype=torch.float64))[0].sum().backward()
    assert layer.up.grad is not None
    assert layer.up.grad[0].abs().sum() > 0 and not layer.up.grad[1:].any()


def test_a_token_that_was_dropped_gives_no_gradient() -> None:
    layer = Experts(4, ExpertSizes(2, 2, 1, Fraction(1, 2))).double()
    for weight in layer.parameters():
        torch.nn.init.ones_(weight)
    x = torch.randn(1, 8, 4, dtype=torch.float64, requires_grad=True)
    y, routing = layer(x)
    y.square().sum().backward()
    assert routing.kept.flatten().tolist() == [True, True] + [False] * 6
    assert x.grad is not None and x.grad[:, :2].all() and not x.grad[:, 2:].any() and not y[:, 2:].any()

"""The learning rate of a step is that of torch's own schedulers, and of the reference, which share no code with it."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from moec.compiler.reference.learning_rate import learning_rate
from moec.runtime.learning_rate import LearningRate

PEAK, LAST = 3e-3, 2e-4


def by_torch(warmup: int, decay: str, steps: int) -> list[float]:
    """Of steps 1 to `steps`: a rise by one scheduler, and then a fall by another, each with its own optimizer."""
    rising = rates_of(lambda o: LinearLR(o, 1 / warmup, 1.0, warmup - 1), warmup)[:-1] if warmup > 1 else []
    fall = {
        "constant": lambda o: LinearLR(o, 1.0, 1.0, steps - warmup),
        "linear": lambda o: LinearLR(o, 1.0, LAST / PEAK, steps - warmup),
        "cosine": lambda o: CosineAnnealingLR(o, steps - warmup, LAST),
    }[decay]
    falling = rates_of(fall, steps - warmup + 1)  # from the step before the first, if nothing rises
    return [*rising, *(falling if warmup else falling[1:])]


def rates_of(scheduler, count: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], PEAK)
    schedule = scheduler(optimizer)
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 2, 7])
def test_is_that_of_torch(warmup: int, decay: str) -> None:
    steps = 20
    rate = LearningRate(PEAK, warmup, decay, steps, LAST)  # pyright: ignore[reportArgumentType]
    expected = by_torch(warmup, decay, steps)
    assert len(expected) == steps
    for step, true in enumerate(expected, 1):
        assert math.isclose(rate.of(step), true, rel_tol=1e-12), step


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 3, 11])
def test_is_that_of_the_reference(warmup: int, decay: str) -> None:
    for steps in (12, 13, 40):
        rate = LearningRate(PEAK, warmup, decay, steps, LAST)  # pyright: ignore[reportArgumentType]
        for step in range(1, 2 * steps):
            true = learning_rate(step, PEAK, warmup, decay, steps, LAST)
            assert math.isclose(rate.of(step), true, rel_tol=1e-12), (steps, step)


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_ends_and_stays(decay: str) -> None:
    rate = LearningRate(PEAK, 5, decay, 30, LAST)  # pyright: ignore[reportArgumentType]
    assert rate.of(5) == PEAK
    assert math.isclose(rate.of(30), LAST) and rate.of(31) == rate.of(1000) == rate.of(30)
    falling = [rate.of(step) for step in range(5, 31)]
    assert falling == sorted(falling, reverse=True) and len(set(falling)) == 26

"""Positive constants of a model of time, by least squares on the logarithm of the seconds."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

Model: TypeAlias = Callable[[Sequence[float]], Sequence[float]]
"""From constants to the seconds of every measurement."""

_STEPS = 100
_NUDGE = 1e-4
_FARTHEST = 2.0  # that a constant's logarithm goes in one step


def least_squares(model: Model, seconds: Sequence[float], start: Sequence[float]) -> tuple[float, ...]:
    """The constants, found from `start` on by the method of Levenberg and Marquardt in their logarithms."""
    measured = np.log(np.array(seconds))

    def residuals(x: np.ndarray) -> np.ndarray:
        return np.log(np.array(model(np.exp(x).tolist()))) - measured

    x = np.log(np.array(start, dtype=float))
    found, damping = residuals(x), 1e-2
    for _ in range(_STEPS):
        slopes = np.stack([(residuals(x + nudge) - found) / _NUDGE for nudge in _NUDGE * np.eye(len(x))], axis=1)
        normal = slopes.T @ slopes
        damped = normal + damping * np.diag(np.diag(normal)) + 1e-12 * np.eye(len(x))
        there = x - np.clip(np.linalg.solve(damped, slopes.T @ found), -_FARTHEST, _FARTHEST)
        better = residuals(there)
        if better @ better < found @ found:
            x, found, damping = there, better, damping / 3
        elif damping > 1e6:
            break
        else:
            damping *= 4
    return tuple(np.exp(x).tolist())


def error(model: Sequence[float], seconds: Sequence[float]) -> float:
    """Mean of what the model is off by, relative to what was measured."""
    return float(np.mean(np.abs(np.array(model) / np.array(seconds) - 1)))


def distance(model: Sequence[float], seconds: Sequence[float]) -> float:
    """What `least_squares` makes least."""
    return float(np.sum(np.log(np.array(model) / np.array(seconds)) ** 2))

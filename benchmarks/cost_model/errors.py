"""How far predictions are from what was measured, and how far a model is that knows nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative, of so many rows."""

    rows: int
    mean: float
    median: float
    worst: float
    bias: float
    rank: float
    """Spearman's correlation of predicted and measured."""

    def __str__(self) -> str:
        return (
            f"{self.rows:3d} rows: mean {self.mean:6.2%}  median {self.median:6.2%}  worst {self.worst:6.1%}"
            f"  bias {self.bias:+6.1%}  rank correlation {self.rank:.3f}"
        )


def errors_of(predicted: Sequence[float], measured: Sequence[float]) -> Errors:
    off = np.array(predicted) / np.array(measured) - 1
    size = np.abs(off)
    return Errors(
        len(off),
        float(size.mean()),
        float(np.median(size)),
        float(size.max()),
        float(off.mean()),
        _spearman(predicted, measured),
    )


def constant_rate(work: Sequence[float], measured: Sequence[float]) -> list[float]:
    """Seconds at the one rate that has the least mean error on these very rows."""
    rates = np.array(work) / np.array(measured)
    best = min(rates, key=lambda rate: float(np.abs(np.array(work) / rate / np.array(measured) - 1).mean()))
    return [each / best for each in work]


def _spearman(first: Sequence[float], second: Sequence[float]) -> float:
    if len(first) < 2:
        return 1.0
    ranks = np.array([np.argsort(np.argsort(np.array(values))) for values in (first, second)], dtype=float)
    return float(np.corrcoef(ranks)[0, 1])

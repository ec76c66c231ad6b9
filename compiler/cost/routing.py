"""How tokens choose experts: all alike, by a distribution, or as a run recorded it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moec.compiler.cost.model_flops import routing_of
from moec.compiler.cost.read_loads import Unreadable, read_loads
from moec.compiler.program import Program
from moec.dsl.diagnostics import plan_error

_SEED = 0
_STEEPEST = 20


@dataclass(frozen=True, slots=True)
class Routing:
    """How likely each expert is to be chosen. `text` says it in words."""

    text: str
    layers: tuple[tuple[float, ...], ...] = ()
    """Shares of the experts, of every layer that was measured, or one that stands for all; none: all alike."""

    def of(self, experts: int) -> list[NDArray[np.float64]]:
        """By layer."""
        if not self.layers:
            return [np.full(experts, 1 / experts)]
        return [np.asarray(shares, dtype=np.float64) for shares in self.layers]


UNIFORM = Routing("uniform")


def read_routing(text: str, program: Program) -> Routing:
    """`uniform`, `zipf:S` (the n-th most popular of the experts is chosen n ** -S as often as the first) or a file.

    Raises PlanError for what is none of these. Without experts in the model nothing is chosen.
    """
    counts = {routed.experts for graph in program.graphs.values() if (routed := routing_of(program, graph))}
    if len(counts) > 1 and text != "uniform":
        raise _unreadable(text, "the layers have different numbers of experts")
    experts = counts.pop() if counts else None
    if text == "uniform":
        return UNIFORM
    if text.startswith("zipf:"):
        found = Routing(f"zipf with exponent {_exponent(text):g}", (_zipf(_exponent(text), experts or 1),))
    else:
        try:
            found = Routing(f"as measured in {text}", read_loads(Path(text), experts))
        except Unreadable as fault:
            raise _unreadable(text, str(fault)) from None
    return found if experts else UNIFORM


def _exponent(text: str) -> float:
    try:
        exponent = float(text.removeprefix("zipf:"))
    except ValueError:
        raise _unreadable(text, "zipf takes a number") from None
    if not 0 <= exponent <= _STEEPEST:
        raise _unreadable(text, f"zipf takes a number from 0 to {_STEEPEST}")
    return exponent


def _zipf(exponent: float, experts: int) -> tuple[float, ...]:
    """Popular ones are on any rank."""
    shares = np.random.default_rng(_SEED).permutation(np.arange(1, experts + 1, dtype=np.float64) ** -exponent)
    return tuple((shares / shares.sum()).tolist())


def _unreadable(text: str, why: str) -> Exception:
    return plan_error(
        "E115", f"--routing {text}: {why}", "write uniform, zipf:1.2, or a file with the rows that each expert got"
    )

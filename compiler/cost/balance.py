"""How evenly experts' rows lie over ranks, and how many are dropped, if choices are drawn from a distribution."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moec.compiler.cost.model_flops import Routed, routing_of
from moec.compiler.program import Program, Unit
from moec.dsl.diagnostics import plan_error

DRAWS = 32
_SEED = 0
_STEEPEST = 20
_MOST = 1 << 22
"""Counts that are drawn at a time."""


@dataclass(frozen=True, slots=True)
class Routing:
    """How likely each expert is to be chosen. `text` says it in words."""

    text: str
    shares: tuple[float, ...] = ()
    """Of experts, the most popular first where they were not measured; none: all alike."""

    def of(self, experts: int) -> NDArray[np.float64]:
        if not self.shares:
            return np.full(experts, 1 / experts)
        shares = np.asarray(self.shares, dtype=np.float64)
        return shares / shares.sum()


UNIFORM = Routing("uniform")


def read_routing(text: str, program: Program) -> Routing:
    """`uniform`, `zipf:S` (the n-th most popular of the experts is chosen n ** -S as often as the first) or a file.

    A file holds a list of rows that each expert got, or metrics of a run: one JSON object a line, whose `experts` has
    such a list for every router.
    """
    counts = {routed.experts for graph in program.graphs.values() if (routed := routing_of(program, graph))}
    if len(counts) > 1 and text != "uniform":
        raise _unreadable(text, "the layers have different numbers of experts")
    experts = counts.pop() if counts else 1
    if text == "uniform":
        return UNIFORM
    if text.startswith("zipf:"):
        try:
            exponent = float(text.removeprefix("zipf:"))
        except ValueError:
            raise _unreadable(text, "zipf takes a number") from None
        if not 0 <= exponent <= _STEEPEST:
            raise _unreadable(text, f"zipf takes a number from 0 to {_STEEPEST}")
        shares = np.arange(1, experts + 1, dtype=np.float64) ** -exponent
        drawn = np.random.default_rng(_SEED).permutation(shares)  # popular ones are on any rank
        return Routing(f"zipf with exponent {exponent:g}", tuple(drawn.tolist()))
    return Routing(f"as measured in {text}", _measured(text, experts))


def _measured(text: str, experts: int) -> tuple[float, ...]:
    try:
        content = Path(text).read_text(encoding="utf-8")
    except OSError as fault:
        raise _unreadable(text, fault.strerror or "it cannot be read") from None
    except UnicodeDecodeError:
        raise _unreadable(text, "it is not text in UTF-8") from None
    try:
        counts = np.zeros(experts)
        for line in content.splitlines():
            found = json.loads(line) if line.strip() else []
            loads = list(found.get("experts", {}).values()) if isinstance(found, dict) else found
            counts += np.asarray(loads, dtype=np.float64).reshape(-1, experts).sum(0)
    except (ValueError, TypeError, AttributeError):
        raise _unreadable(text, f"it does not hold rows for each of {experts} experts") from None
    if not np.isfinite(counts).all() or counts.min() < 0 or counts.sum() <= 0:
        raise _unreadable(text, "the rows of its experts add up to nothing")
    return tuple(counts.tolist())


def _unreadable(text: str, why: str) -> Exception:
    return plan_error(
        "E115", f"--routing {text}: {why}", "write uniform, zipf:1.2, or a file with the rows that each expert got"
    )


@dataclass(frozen=True, slots=True)
class Balance:
    """Of all units with experts, the worst."""

    load_balance: float
    """Mean over maximum of the ranks' rows; 1 where there are no experts, or every rank has all."""
    dropped: float
    """Of all choices, the part for which no expert had room."""
    skew: float
    """The fullest rank's rows over the mean."""


EVEN = Balance(1.0, 0.0, 1.0)


def balance_of(program: Program, routing: Routing) -> Balance:
    """Draw the choices of a micro-batch, `DRAWS` times with one seed."""
    found = [
        _drawn(routed, *_split(program, unit, routed), routing)
        for unit in program.units.values()
        for routed in [routing_of(program, program.graphs[unit.graph])]
        if routed is not None
    ]
    if not found:
        return EVEN
    return Balance(
        min(each.load_balance for each in found),
        max(each.dropped for each in found),
        max(each.skew for each in found),
    )


def _split(program: Program, unit: Unit, routed: Routed) -> tuple[int, int]:
    """Over how many ranks the experts lie, and in how many parts the samples never meet at an expert."""
    mesh, plan = program.plan.mesh, program.plan
    owners = unit.values[routed.weight].placement.split[0]
    apart = [axis for axis in plan.axes_of("batch") if axis not in owners]
    return mesh.size(owners), mesh.size(apart)


def _drawn(routed: Routed, owners: int, parts: int, routing: Routing) -> Balance:
    rng = np.random.default_rng(_SEED)
    whole = routed.group != "per_sequence"
    groups = 1 if whole else routed.batch
    tokens = routed.positions * (routed.batch if whole else 1)
    draws = max(1, min(DRAWS, _MOST // (groups * routed.experts)))
    counts = _counts(rng, tokens, routed.top_k, routing.of(routed.experts), (draws, groups))
    kept = counts if routed.capacity is None else np.minimum(counts, routed.capacity)
    by_owner = kept.reshape(draws, groups, owners, -1).sum(-1)
    # A micro-batch that is one group lies over all parts alike.
    ranks = by_owner if whole else by_owner.reshape(draws, parts, -1, owners).sum(2)
    flat = ranks.reshape(draws, -1).astype(np.float64)
    mean, most = flat.mean(1), flat.max(1)
    return Balance(float((mean / most).mean()), float(1 - kept.sum() / counts.sum()), float((most / mean).mean()))


def _counts(
    rng: np.random.Generator, tokens: int, top_k: int, shares: NDArray[np.float64], size: tuple[int, int]
) -> NDArray[np.int64]:
    """Choices of each expert [draws, groups, E]. A token chooses an expert once, so with several choices each expert is
    among those of so many tokens, drawn for itself."""
    if top_k == 1:
        return rng.multinomial(tokens, shares, size=size)
    return rng.binomial(tokens, _chosen(shares, top_k), size=(*size, len(shares)))


def _chosen(shares: NDArray[np.float64], top_k: int) -> NDArray[np.float64]:
    """How likely each expert is among top_k different ones: 1 - (1 - share) ** n, with the n for which these add up."""
    if top_k >= np.count_nonzero(shares):
        return (shares > 0).astype(np.float64)
    low, high = 0.0, 1.0
    while (1 - (1 - shares) ** high).sum() < top_k:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - (1 - shares) ** middle).sum() < top_k else (low, middle)
    return 1 - (1 - shares) ** high


def worst_skew(program: Program) -> float:
    """If all choose the experts of one rank: rows of the fullest over the mean, as far as capacities let it come."""
    worst = 1.0
    for unit in program.units.values():
        routed = routing_of(program, program.graphs[unit.graph])
        if routed is None:
            continue
        owners, _ = _split(program, unit, routed)
        samples = 1 if routed.group == "per_sequence" else routed.batch
        mean = routed.top_k * routed.positions * samples / routed.experts
        most = owners * min(1.0, routed.experts / owners / routed.top_k)  # a token chooses an expert once
        room = most if routed.capacity is None else routed.capacity / mean
        worst = max(worst, min(most, room))
    return worst

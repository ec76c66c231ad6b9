"""How evenly experts' rows lie over ranks, and how many are dropped, if choices are drawn from a distribution."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moec.compiler.cost.model_flops import Routed, routing_of
from moec.compiler.cost.routing import Routing
from moec.compiler.program import Program, Unit

DRAWS = 32
_SEED = 0
_MOST = 1 << 22
"""Counts that are drawn at a time."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Of all layers with experts, the worst."""

    load_balance: float
    """Mean over maximum of the ranks' rows; 1 where there are no experts, or every rank has all."""
    dropped: float
    """Of all choices, the part for which no expert had room."""
    skew: float
    """The fullest rank's rows over the mean."""


EVEN = Balance(1.0, 0.0, 1.0)


def balance_of(program: Program, routing: Routing) -> Balance:
    """Draw the choices of a micro-batch, `DRAWS` times with one seed, for every layer that `routing` knows."""
    found = [
        _drawn(routed, *_split(program, unit, routed), shares)
        for unit in program.units.values()
        for routed in [routing_of(program, program.graphs[unit.graph])]
        if routed is not None
        for shares in routing.of(routed.experts)
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


def _drawn(routed: Routed, owners: int, parts: int, shares: NDArray[np.float64]) -> Balance:
    rng = np.random.default_rng(_SEED)
    whole = routed.group != "per_sequence"
    groups = 1 if whole else routed.batch
    tokens = routed.positions * (routed.batch if whole else 1)
    draws = max(1, min(DRAWS, _MOST // (groups * routed.experts)))
    counts = _counts(rng, tokens, routed.top_k, shares, (draws, groups))
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

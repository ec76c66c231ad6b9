"""Searches meshes, folds, shards, schedules and machines for the plans that come nearest to the six requirements.

A grid over the mesh first, then every change of the best of it. What one estimate of a plan costs is mostly the run of
its text without memory, which is the same on all GPUs: each plan is run once, and timed on every machine.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from strategy_document.variants import Traced, traced

from moec.compiler.cost import Estimate, Requirement, decide
from moec.compiler.cost.mend import changes
from moec.dsl import Plan, vary_plan

SIX = {
    "memory": "< 64 GB",
    "latency": "< 50 ms",
    "throughput": "> 20_000 tokens/s",
    "comm_overhead": "< 20 %",
    "load_balance": "> 90 %",
    "utilization": "> 90 %",
}
"""The requirements of the strategy document."""

BOUNDS = tuple(f"require.{name}={bound}" for name, bound in SIX.items())
MACHINES = ("h100", "b200", "gb200")
MOST_RANKS = 512

MODELS = {
    "flagship": ("model.layers=16", "model.experts.hidden=7168"),
    "17 layers": ("model.layers=17", "model.experts.hidden=6720"),
}
"""Of 30 billion parameters both; one more layer balances the head, which stands on the last stage."""

_FEWEST_SHARDS = 10
"""Ranks that the experts go over: 18 bytes of 30 billion parameters on fewer are more than 64 GB."""

_BATCH = 1024
_CHANGED = 3
"""Of the grid, how many plans of each model are changed further."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan on a machine, held against the six."""

    model: str
    machine: str
    settings: tuple[str, ...]
    found: Estimate

    @property
    def broken(self) -> list[Requirement]:
        return [each for each in decide(self.found) if each.name in SIX and not each.passed]

    @property
    def rank(self) -> tuple[float, ...]:
        """Fewer bounds broken, then by less in all, then the tightest with more to spare, then more tokens of a GPU."""
        broken = self.broken
        tightest = min(each.margin for each in decide(self.found) if each.name in SIX)
        per_gpu = self.found.tokens_per_second / self.found.world_size
        return len(broken), sum(min(1.0, -each.margin) for each in broken), -tightest, -per_gpu


def search() -> list[Candidate]:
    """The best first, and of several that come out the same the first that was tried."""
    found: list[Candidate] = []
    for name, settings in MODELS.items():
        model = traced("30b_moe", *BOUNDS, *settings)
        tried: set[tuple[str, ...]] = set()
        coarse = list(_candidates(name, model, _grid(), tried))
        kept = dict.fromkeys(each.settings for each in sorted(coarse, key=lambda each: each.rank))
        best = list(kept)[:_CHANGED]
        changed = [change for each in best for change in _changes(model.plan, each)]
        found += [*coarse, *_candidates(name, model, changed, tried)]
    return sorted({(each.machine, each.rank): each for each in reversed(found)}.values(), key=lambda each: each.rank)


def say(candidate: Candidate) -> str:
    """One line."""
    found, broken = candidate.found, ", ".join(each.name for each in candidate.broken) or "none"
    return (
        f"{candidate.machine:6} {candidate.model:9} {found.world_size:4} ranks  "
        f"{found.memory_bytes / 2**30:5.1f} GiB  latency {1e3 * found.time.latency:6.1f} ms  "
        f"{found.tokens_per_second:11,.0f} tokens/s  talk {100 * found.comm_overhead:4.1f} %  "
        f"balance {100 * found.balance.load_balance:4.1f} %  utilization {100 * found.utilization:4.1f} %  "
        f"MFU {100 * found.mfu:4.1f} %  breaks {broken}: {' '.join(candidate.settings)}"
    )


def _candidates(
    name: str, model: Traced, plans: Iterable[tuple[str, ...]], tried: set[tuple[str, ...]]
) -> Iterator[Candidate]:
    """Each plan that works on every machine, those that were tried before left out."""
    for settings in plans:
        if settings in tried:
            continue
        tried.add(settings)
        found = model.under(*settings)
        if found is None or found.world_size > MOST_RANKS:
            continue
        for machine in MACHINES:
            yield Candidate(name, machine, settings, model.on(found, *settings, f"hardware={machine}"))


def _grid() -> Iterator[tuple[str, ...]]:
    """Pipelines, experts and tensor ranks, with one or two sequences of a rank in a micro-batch."""
    for pp, ep, tp, local in product((1, 2, 4), (4, 8, 16, 32, 64), (1, 2, 4), (1, 2)):
        if _FEWEST_SHARDS <= pp * ep * tp <= MOST_RANKS:
            yield _settings(
                {
                    "mesh.pp": pp,
                    "mesh.dp": 1,
                    "mesh.ep": ep,
                    "mesh.tp": tp,
                    "schedule.batch": _BATCH,
                    "schedule.accumulate": _BATCH // (ep * local),
                }
            )


def _changes(base: Plan, settings: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """One step from a plan: those that mend a bound, and experts that fold over other axes."""
    before = _values(settings)
    plan = vary_plan(base, settings)
    assert plan is not None, f"{settings} worked"
    for change in changes(plan):
        yield _settings(before | _values(change))
    ranks = int(str(before["mesh.ep"]))
    for tp in (1, 2, 4):
        if tp < ranks:
            fold = {"mesh.dp": ranks // tp, "mesh.tp": tp, "mesh.ep": f"{ranks} over dp, tp", "shard.batch": "dp"}
            yield _settings(before | fold)


def _values(settings: Iterable[str]) -> dict[str, object]:
    return {path: value for path, _, value in (setting.partition("=") for setting in settings)}


def _settings(values: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(f"{path}={value}" for path, value in values.items())

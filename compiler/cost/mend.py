"""Searches for the smallest change of a plan that keeps a bound which it breaks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product, zip_longest
from math import ceil, floor, prod

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.requirements import Requirement, decide
from moec.dsl.plan import Decoder, Plan

Evaluate = Callable[[Sequence[str]], Estimate | None]
"""The estimate of the plan under these settings as well; None where they make no valid plan."""

BUDGET = 24
"""Plans that are estimated in one search."""

_BEAM = 3
_ALIKE = 1e-3
_SMALLER = 8


@dataclass(frozen=True, slots=True)
class Mend:
    """Settings after which the bound is kept; if no change was found those that come nearest, or none."""

    name: str
    relation: str
    bound: float
    settings: tuple[str, ...]
    value: float
    passed: bool
    breaks: tuple[str, ...]
    """Bounds that the plan kept, and no longer does."""
    worsens: tuple[str, ...]
    """Bounds that the plan breaks, and now by more."""
    tried: int


@dataclass(frozen=True, slots=True)
class _Tried:
    settings: tuple[str, ...]
    requirements: tuple[Requirement, ...]
    fits: bool

    def get(self, name: str, relation: str) -> Requirement:
        return next(each for each in self.requirements if (each.name, each.relation) == (name, relation))

    @property
    def shortfall(self) -> float:
        """How far the broken bounds are from being kept, all together."""
        return sum(min(1.0, -each.margin) for each in self.requirements if not each.passed) + (not self.fits)


def mend(found: Estimate, evaluate: Evaluate, budget: int = BUDGET) -> tuple[Mend, ...]:
    """For every bound that is broken the first change of few settings that keeps it.

    One setting at a time: those that leave the job as large as it is come first. Then pairs, the second beside what
    came nearest. Of changes alike in number one that breaks nothing else comes first.
    """
    start = _Tried((), decide(found), found.fits)
    broken = [each for each in start.requirements if not each.passed]
    if not broken:
        return ()
    tried = [start]
    seen: set[tuple[str, ...]] = {()}
    level = [start]
    while level and len(tried) <= budget:
        fresh = list(_next_level(found.program.plan, level, seen, evaluate, budget - len(tried) + 1))
        tried += fresh
        if (
            all(any(each.get(b.name, b.relation).passed for each in tried) for b in broken)
            or len(level[0].settings) > 1
        ):
            break
        level = sorted(fresh, key=lambda each: each.shortfall)[:_BEAM]
    return tuple(_best(requirement, start, tried) for requirement in broken)


def _next_level(
    plan: Plan, level: Sequence[_Tried], seen: set[tuple[str, ...]], evaluate: Evaluate, budget: int
) -> Iterator[_Tried]:
    for before in level:
        for settings in (*_smaller_meshes(plan), *changes(plan)):
            both = _joined(before.settings, settings)
            if both is None or both in seen or budget <= 0:
                continue
            seen.add(both)
            found = evaluate(both)
            if found is not None:
                budget -= 1
                yield _Tried(both, decide(found), found.fits)


def _joined(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...] | None:
    """Both changes; none where they set the same thing."""
    paths = [setting.partition("=")[0] for setting in (*first, *second)]
    return tuple(sorted((*first, *second))) if len(set(paths)) == len(paths) else None


def _best(broken: Requirement, start: _Tried, tried: Sequence[_Tried]) -> Mend:
    kept = {(each.name, each.relation) for each in start.requirements if each.passed}
    candidates = [(each, each.get(broken.name, broken.relation)) for each in tried[1:]]

    def breaks(each: _Tried) -> tuple[str, ...]:
        names = tuple(r.name for r in each.requirements if not r.passed and (r.name, r.relation) in kept)
        return names if each.fits or not start.fits else (*names, "the memory of the hardware")

    def worsens(each: _Tried) -> tuple[str, ...]:
        pairs = zip(start.requirements, each.requirements, strict=True)
        return tuple(now.name for before, now in pairs if not before.passed and now.margin < before.margin - _ALIKE)

    keeping = [each for each, requirement in candidates if requirement.passed]
    if keeping:
        chosen = min(
            keeping, key=lambda each: (bool(breaks(each)), bool(worsens(each)), len(each.settings), tried.index(each))
        )
    else:
        chosen = max(tried, key=lambda each: (each.fits, each.get(broken.name, broken.relation).margin))
    got = chosen.get(broken.name, broken.relation)
    return Mend(
        broken.name,
        broken.relation,
        broken.bound,
        chosen.settings,
        got.value,
        got.passed,
        breaks(chosen),
        worsens(chosen),
        len(tried) - 1,
    )


def _smaller_meshes(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Where the mesh has more ranks than `require` allows: the largest that fit, with the fewest axes made smaller."""
    bounds = [each for each in plan.require if each.name == "world" and each.relation.startswith("<")]
    most = min((ceil(b.bound) - 1 if b.relation == "<" else floor(b.bound) for b in bounds), default=0)
    axes = [axis for axis in plan.mesh.axes if not axis.over]
    if not 0 < most < plan.mesh.world_size:
        return
    choices = [[n for n in range(1, axis.size + 1) if axis.size % n == 0] for axis in axes]
    fitting = [sizes for sizes in product(*choices) if prod(sizes) <= most]
    largest = max(prod(sizes) for sizes in fitting)
    found = [
        tuple(f"mesh.{axis.name}={size}" for axis, size in zip(axes, sizes, strict=True) if size != axis.size)
        for sizes in fitting
        if prod(sizes) == largest
    ]
    yield from sorted(found, key=len)[:_SMALLER]


def changes(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Changes of one thing, the mildest first: schedule, precision, the mesh at its size, its size, the batch."""
    schedule, axes = plan.schedule, [axis for axis in plan.mesh.axes if not axis.over]
    for count in _counts(schedule.accumulate, schedule.batch):
        yield (f"schedule.accumulate={count}",)
    yield (f"schedule={'gpipe' if schedule.kind == '1f1b' else '1f1b'}",)
    yield from _shards(plan)
    if plan.train.precision != "bf16":
        yield ("train.precision=bf16",)
    for small, large in permutations(axes, 2):
        if small.size % 2 == 0:
            yield f"mesh.{small.name}={small.size // 2}", f"mesh.{large.name}={large.size * 2}"
    for axis in axes:
        yield (f"mesh.{axis.name}={axis.size * 2}",)
    for size in (2, 1):
        for axis in axes:
            if axis.size % size == 0 and axis.size > size:
                yield (f"mesh.{axis.name}={axis.size // 2 if size == 2 else 1}",)
    for batch in (schedule.batch * 2, schedule.batch // 2):
        if batch:
            yield (f"schedule.batch={batch}",)


def _counts(accumulate: int, batch: int) -> list[int]:
    """Numbers of micro-batches, the nearest first: by powers of two, up to one sample each and down to a single one."""
    doublings = [accumulate << n for n in range(1, 64) if accumulate << n <= batch]
    halvings = [accumulate >> n for n in range(1, 64) if accumulate % (1 << n) == 0]
    return [each for pair in zip_longest(doublings, halvings) for each in pair if each]


def _shards(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Sequence parallelism, and the batch over axes that so far hold copies."""
    if not isinstance(plan.model, Decoder):
        return
    tensor = plan.axes_of("heads")
    if plan.mesh.size(tensor) > 1 and not plan.axes_of("seq"):
        line = plan.line_of("heads")
        assert line is not None
        yield (f"shard.seq={','.join(line.axes)}",)
    batch, experts = plan.line_of("batch"), plan.line_of("experts")
    if experts and not set(experts.axes) & set(batch.axes if batch else ()):
        yield (f"shard.batch={','.join((*(batch.axes if batch else ()), *experts.axes))}",)

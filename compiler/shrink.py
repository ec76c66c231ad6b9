"""Shrinks a program for the proof in numbers: sizes, layers and micro-batches get small, the structure stays."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from moec.compiler.pipeline import schedule_microbatches
from moec.compiler.program import Program
from moec.dsl.plan import Imported

Units = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A program under fewer micro-batches, the layers that each of its stages keeps, and what was shrunk, in words."""

    program: Program
    units: tuple[Units, ...]
    changes: tuple[str, ...]


def shrink(program: Program, batches: int | None = None) -> Shrunk:
    """Of every loop one turn, of one of them two; micro-batches that fill, repeat and drain; small sizes.

    `batches` keeps that many micro-batches instead. An imported module keeps all its layers.
    """
    schedule = program.plan.schedule
    count = batches or min(schedule.accumulate, max(2, len(program.stages)))
    plan = replace(program.plan, schedule=replace(schedule, accumulate=count))
    small = schedule_microbatches(replace(program, plan=plan))
    keep_all = isinstance(program.plan.model, Imported)
    longest = max(range(len(program.stages)), key=lambda n: max(len(loop.turns) for loop in program.stages[n].loops))
    units = tuple(_units(program, stage, keep_all, stage == longest) for stage in range(len(program.stages)))
    changes = [f"{name} {full} -> {little}" for name, (full, little) in _sizes(program).items() if full != little]
    kept = sum(len(prefixes) for stage in units for _, prefixes in stage if prefixes != ("",))
    layers = sum(call.repeated for call in program.calls)
    if kept != layers:
        changes.append(f"layers {layers} -> {kept}")
    if count != schedule.accumulate:
        changes.append(f"micro-batches {schedule.accumulate} -> {count}")
    return Shrunk(small, units, tuple(changes))


def kept_layers(units: tuple[Units, ...], program: Program) -> list[str]:
    """Module paths of the layers that are left, in the order of the model."""
    kept = {prefix for stage in units for _, prefixes in stage for prefix in prefixes}
    return [call.prefix for call in program.calls if call.repeated and call.prefix in kept]


def _units(program: Program, stage: int, keep_all: bool, twice: bool) -> Units:
    found: list[tuple[str, tuple[str, ...]]] = []
    for loop in program.stages[stage].loops:
        turns = len(loop.turns) if keep_all else min(len(loop.turns), 2 if twice else 1)
        twice &= turns < 2
        for place, call in enumerate(loop.body):
            found.append((call.unit, tuple(turn[place].prefix for turn in loop.turns[:turns])))
    return tuple(found)


def _sizes(program: Program) -> Mapping[str, tuple[int, int]]:
    full, small = program.sizes.sizings[:2]
    return {name: (full[name], small[name]) for name in full if name in small}

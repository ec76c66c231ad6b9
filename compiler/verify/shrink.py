"""What the proof in numbers runs of a program: all of it, or a shrunken one of the same structure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from moec.compiler.emit import FULL, SMALL
from moec.compiler.pipeline import schedule_microbatches
from moec.compiler.program import Call, Loop, Program
from moec.dsl.plan import Imported

Units = tuple[tuple[str, tuple[str, ...]], ...]
"""Of a stage, as its file has them: every kind of call with the module paths of its instances."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A program as it is run: under a sizing, with the loops that are kept of each stage. `changes` is in words."""

    program: Program
    sizing: int
    loops: tuple[tuple[Loop, ...], ...]
    changes: tuple[str, ...] = ()

    @property
    def units(self) -> tuple[Units, ...]:
        return tuple(tuple(_units(loops)) for loops in self.loops)

    @property
    def layers(self) -> list[str]:
        """Module paths of the elements of lists that are kept, in the order of the model."""
        kept = {call.prefix for stage in range(len(self.loops)) for call in self.calls(stage)}
        return [call.prefix for call in self.program.calls if call.repeated and call.prefix in kept]

    def calls(self, stage: int) -> list[Call]:
        """As a forward of the stage takes them."""
        return [call for loop in self.loops[stage] for turn in loop.turns for call in turn]

    @property
    def sizes(self) -> Mapping[str, int]:
        return self.program.sizes.sizings[self.sizing]


def exact(program: Program) -> Trial:
    """All of a program, at its own sizes."""
    return Trial(program, FULL, tuple(stage.loops for stage in program.stages))


def shrink(program: Program, batches: int | None = None) -> Trial:
    """Of every loop one turn, of one of them two; micro-batches that fill, repeat and drain; small sizes.

    `batches` keeps that many micro-batches instead. An imported module keeps all its layers.
    """
    schedule = program.plan.schedule
    count = batches or min(schedule.accumulate, max(2, len(program.stages)))
    plan = replace(program.plan, schedule=replace(schedule, accumulate=count))
    small = schedule_microbatches(replace(program, plan=plan))
    trial = Trial(small, SMALL, _kept(program))
    changes = [f"{name} {full} -> {little}" for name, (full, little) in _sizes(program).items() if full != little]
    layers = sum(call.repeated for call in program.calls)
    if len(trial.layers) != layers:
        changes.append(f"layers {layers} -> {len(trial.layers)}")
    if count != schedule.accumulate:
        changes.append(f"micro-batches {schedule.accumulate} -> {count}")
    return replace(trial, changes=tuple(changes))


def _kept(program: Program) -> tuple[tuple[Loop, ...], ...]:
    if isinstance(program.plan.model, Imported):
        return tuple(stage.loops for stage in program.stages)
    loops = [loop for stage in program.stages for loop in stage.loops]
    longest = max(loops, key=lambda loop: len(loop.turns))
    return tuple(
        tuple(Loop(loop.turns[: 2 if loop is longest else 1]) for loop in stage.loops) for stage in program.stages
    )


def _units(loops: tuple[Loop, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for loop in loops:
        for place, call in enumerate(loop.body):
            yield call.unit, tuple(turn[place].prefix for turn in loop.turns)


def _sizes(program: Program) -> Mapping[str, tuple[int, int]]:
    full, small = program.sizes.sizings[FULL], program.sizes.sizings[SMALL]
    return {name: (full[name], small[name]) for name in full if name in small}

"""An estimate on 4 ranks, and what is made of it."""

from dataclasses import replace
from pathlib import Path

import pytest
from compiled import compiled

from moec.compiler.cost import Estimate, estimate, machine_of
from moec.compiler.cost.memory import Memory
from moec.compiler.cost.simulate import Span

PLAN = Path(__file__).parents[2] / "examples" / "tiny_moe.plan"


@pytest.fixture(scope="session")
def small() -> Estimate:
    """Two stages of two ranks, 1F1B over four micro-batches."""
    program = compiled(PLAN, "mesh.ep=1")
    return estimate(program, machine_of(program.plan))


@pytest.fixture(scope="session")
def large(small: Estimate) -> Estimate:
    """Its stages 32 times, with 256 micro-batches of a made-up schedule, whose waits are all of different lengths."""
    count, micro_batches = 64, 256
    times = tuple(replace(small.time.stages[n % 2], stage=n) for n in range(count))
    spans = [span for n in range(count) for span in _schedule(n, micro_batches)]
    spans.sort(key=lambda span: (span.start, span.stage))
    seconds = max(span.end for span in spans)
    memory = tuple(_under_way(small.memory[n % 2], count - n, micro_batches) for n in range(count))
    schedule = replace(small.program.plan.schedule, accumulate=micro_batches)
    program = replace(
        small.program,
        plan=replace(small.program.plan, schedule=schedule),
        stages=tuple(replace(small.program.stages[n % 2], index=n) for n in range(count)),
    )
    time = replace(small.time, stages=times, spans=tuple(spans), seconds=seconds)
    ranks = tuple(small.ranks[n % 2] for n in range(count))
    return replace(small, program=program, time=time, ranks=ranks, memory=memory, worst_memory=memory)


def _schedule(stage: int, micro_batches: int) -> list[Span]:
    now, spans = 0.003 * stage, []
    for i in range(micro_batches):
        steps = (("forward", 0.01), ("wait", 0.0001 * ((i * 7 + stage) % 13)), ("send", 0.0007), ("backward", 0.02))
        for name, seconds in (*steps, ("wait", 0.0002 * ((i + stage) % 5)), ("send", 0.0007)):
            spans.append(Span(stage, name, i, now, now + seconds))
            now += seconds
    return spans


def _under_way(memory: Memory, most: int, micro_batches: int) -> Memory:
    held, levels, under_way = memory.held.total, [], 0
    for i in range(micro_batches):
        under_way = min(most, under_way + 1)
        levels.append(("forward", i, held + under_way * 1_000_003, held + under_way * 1_000_000))
        levels.append(("backward", i, held + under_way * 1_000_009, held + (under_way - 1) * 1_000_000))
    return replace(memory, levels=tuple(levels))

"""What the page draws, as one tree of plain values, short enough for a hundred thousand spans."""

from collections.abc import Sequence
from math import floor, log10
from typing import TypeVar

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.pass_time import PassTime
from moec.compiler.cost.simulate import Span
from moec.compiler.report.breakdown import piece_name
from moec.compiler.report.levels import Level, with_levels
from moec.compiler.report.spans import spans_of_stages
from moec.compiler.report.stage_rows import layers_text, ranks_text

T = TypeVar("T")

_DIGITS = 7
"""Of a step's time: to so many are times rounded, and what is shorter than the last is left out."""


def page_data(found: Estimate) -> dict[str, object]:
    """Names and numbers.

    `stages[n].spans` are places in `stages[n].steps`, in order of time. A step says what happens (a place in `kinds`),
    for how much later a micro-batch than the last of its kind, how long after the end of the one before, how long,
    and, of a pass, which of `levels` memory is at.
    """
    tick = 10.0 ** (floor(log10(found.step_seconds)) - _DIGITS)
    passes: dict[PassTime, int] = {}
    kinds: dict[str, int] = {}
    spans = spans_of_stages(found)
    stages = [_stage(found, n, spans[n], tick, kinds, passes) for n in range(len(spans))]
    return {
        "seconds": found.step_seconds,
        "tick": tick,
        "capacity": found.machine.memory,
        "kinds": list(kinds),
        "stages": stages,
        "passes": [_pieces(done) for done in passes],
        "mesh": _mesh(found),
    }


def _stage(
    found: Estimate, n: int, spans: Sequence[Span], tick: float, kinds: dict[str, int], passes: dict[PassTime, int]
) -> dict[str, object]:
    stage, memory = found.time.stages[n], found.memory[n]
    levels: dict[tuple[int, int, int], int] = {}
    steps, places = _steps(spans, with_levels(spans, memory), tick, kinds, levels)
    return {
        "ranks": ranks_text(found.program, stage.rank),
        "layers": layers_text(found.program.stages[n]),
        "held": [memory.held.weights + memory.held.tables, memory.held.gradients, memory.held.optimizer],
        "forward": _number(stage.forward, passes),
        "backward": _number(stage.backward, passes),
        "levels": list(levels),
        "steps": steps,
        "spans": places,
    }


def _steps(
    spans: Sequence[Span],
    at: Sequence[Level | None],
    tick: float,
    kinds: dict[str, int],
    levels: dict[tuple[int, int, int], int],
) -> tuple[list[tuple[int, ...]], list[int]]:
    """The distinct steps of a stage, and their places in order of time."""
    steps: dict[tuple[int, ...], int] = {}
    before: dict[str, int] = {}
    ended, places = 0, []
    for span, level in zip(spans, at, strict=True):
        start, end = round(span.start / tick), round(span.end / tick)
        if start == end:
            continue
        advance = span.micro_batch - before.get(span.name, -1)
        memory = [_number((level.kept, level.working, level.after), levels)] if level else []
        step = (_number(span.name, kinds), advance, start - ended, end - start, *memory)
        places.append(_number(step, steps))
        before[span.name], ended = span.micro_batch, end
    return list(steps), places


def _number(what: T, numbers: dict[T, int]) -> int:
    """Its place in the order of first use."""
    return numbers.setdefault(what, len(numbers))


def _pieces(done: PassTime) -> list[list[object]]:
    """Name, seconds, does it talk, bytes, and how often its segment runs: neighbours of one count are one segment."""
    return [
        [piece_name(piece), float(f"{piece.seconds:.4g}"), int(piece.talks), piece.size, times]
        for piece, times in done.pieces
    ]


def _mesh(found: Estimate) -> dict[str, object]:
    """Axes as the atoms that they span, slowest first; the last atom varies fastest."""
    plan = found.program.plan
    return {
        "world": found.world_size,
        "node": found.machine.ranks_per_node,
        "atoms": [[atom.name, atom.size] for atom in plan.mesh.atoms],
        "axes": [[axis.name, *plan.mesh.atoms_of(axis.name)] for axis in plan.mesh.axes],
        "stages": plan.pipeline_axis or "",
    }

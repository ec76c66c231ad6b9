"""What the time of a step goes into, of the busiest stage and of the mean stage, line by line."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.pass_time import Piece
from moec.compiler.cost.say import seconds
from moec.compiler.cost.simulate import Span
from moec.compiler.cost.step import StageTime
from moec.compiler.report.kinds import KINDS, busiest_stage
from moec.compiler.report.shares import percent, width
from moec.compiler.report.spans import spans_of_stages

Times = Mapping[tuple[str, str], float]
"""Seconds by kind, and by what it is: a region, a collective with its axes."""

BETWEEN = "between regions"

_LEAST = 0.005
"""Of a step: what is less in both columns has no line of its own."""


@dataclass(frozen=True, slots=True)
class Cell:
    """An amount, and its share of a step or of the machine's memory."""

    amount: str
    share: str
    width: str


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that takes time or memory, of the stage that has most and of the mean; `heads` if it is a sum."""

    kind: str
    name: str
    heads: bool
    most: Cell
    mean: Cell


def step_rows(found: Estimate) -> tuple[Row, ...]:
    """Every kind with what it is made of, the largest first."""
    spans = spans_of_stages(found)
    stages = [_times(found, stage, spans[n]) for n, stage in enumerate(found.time.stages)]
    busiest, mean = stages[busiest_stage(found)], _mean(stages)
    return tuple(row for kind in KINDS for row in _rows(kind, busiest, mean, found.step_seconds))


def piece_name(piece: Piece) -> str:
    """A region's own name, or a collective with the axes that it goes over."""
    if piece.talks:
        return f"{piece.name} over {piece.group}"
    return piece.name or BETWEEN


def _times(found: Estimate, stage: StageTime, spans: Sequence[Span]) -> Times:
    micro_batches = found.program.plan.schedule.accumulate
    times: dict[tuple[str, str], float] = defaultdict(float)
    for way, done in (("forward", stage.forward), ("backward", stage.backward)):
        for piece, count in done.pieces:
            kind = "talking" if piece.talks else "computing"
            times[kind, f"{piece_name(piece)}, {way}"] += micro_batches * count * piece.seconds
    for name, value in _sums(spans):
        times["reducing", name] += value
    times["sending", ""], times["waiting", ""], times["updating", ""] = stage.sending, stage.waiting, stage.updating
    return times


def _sums(spans: Sequence[Span]) -> Iterator[tuple[str, float]]:
    for span in spans:
        if span.name.startswith("reduce "):
            yield f"gradients over {span.name.removeprefix('reduce ')}", span.end - span.start
        elif span.name == "norm":
            yield "norm of all gradients", span.end - span.start


def _mean(stages: Sequence[Times]) -> Times:
    mean: dict[tuple[str, str], float] = defaultdict(float)
    for times in stages:
        for part, value in times.items():
            mean[part] += value / len(stages)
    return mean


def _rows(kind: str, busiest: Times, mean: Times, whole: float) -> Iterator[Row]:
    """The sum of a kind, and its parts; small ones share a line."""

    def row(name: str, parts: Collection[tuple[str, str]]) -> Row:
        cells = [_cell(sum(times.get(part, 0.0) for part in parts), whole) for times in (busiest, mean)]
        return Row(kind, name or kind, not name, *cells)

    parts = sorted((part for part in mean if part[0] == kind), key=lambda part: -mean[part])
    yield row("", parts)
    named = [part for part in parts if part[1]]
    small = [part for part in named if max(busiest.get(part, 0.0), mean[part]) < _LEAST * whole]
    merged = small if len(small) > 1 else []
    for part in named:
        if part not in merged:
            yield row(part[1], [part])
    if merged:
        yield row(f"{len(merged)} below {percent(_LEAST)}", merged)


def _cell(value: float, whole: float) -> Cell:
    """What is left of a difference of times by rounding is nothing."""
    return Cell(seconds(value) if value > 1e-12 * whole else "0 s", percent(value / whole), width(value / whole))

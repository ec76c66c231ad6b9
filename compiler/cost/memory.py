"""What a rank of each stage holds: for all steps, for the micro-batches that are under way, and for a moment."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from moec.compiler.cost.dry_run import Held, Rank
from moec.compiler.cost.interleave import Interleaved
from moec.compiler.cost.practice import Practice
from moec.compiler.cost.recorder import Talk
from moec.compiler.cost.sharded_weights import held_by
from moec.compiler.program import Program


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one rank at its peak, by what they are for."""

    held: Held
    micro_batches: int
    """That are under way at the peak."""
    kept: int
    """Of each of them, from its forward to its backward; of an interleaved schedule by a slice of the stage."""
    activations: int
    """What all of them keep, without the one that is being computed."""
    working: int
    """Of the one that is being computed, and what lives but for a moment."""
    communication: int
    """Of these, operands and results of the largest collective."""
    fullest: str
    """Is it a forward or a backward that is computed at the peak?"""
    levels: tuple[tuple[str, int, int, int], ...]
    """Through the schedule: what is done, for which micro-batch, the peak while it is, and what is held after it."""

    @property
    def total(self) -> int:
        return self.held.total + self.activations + self.working


def memory_of(program: Program, ranks: Sequence[Rank], practice: Practice) -> tuple[Memory, ...]:
    """Of every stage."""
    slices = practice.interleave if len(ranks) > 1 else 1
    interleaved = Interleaved(len(ranks), slices, program.plan.schedule.accumulate)
    found = []
    for rank, stage in zip(ranks, program.stages, strict=True):
        turns = [(each.kind, each.index) for each in stage.schedule if each.kind in ("forward", "backward")]
        held = replace(rank, held=held_by(rank, practice))
        found.append(_through(held, turns if slices == 1 else interleaved.turns(stage.index), slices))
    return tuple(found)


def _through(rank: Rank, turns: Sequence[tuple[str, int]], slices: int) -> Memory:
    """Walk through what a rank computes, of so many slices of its stage at a time."""
    kept, levels, under_way = rank.forward.end // slices, [], 0
    other = rank.forward.end - kept  # of the slices that are not computed
    peaks = {"forward": rank.forward.peak - other, "backward": rank.backward.peak - other}
    most = (0, 0, 0, "forward")  # peak, slices beside the one that is computed, its own bytes, what it does
    for kind, index in turns:
        own = peaks[kind]
        beside = under_way if kind == "forward" else under_way - 1
        under_way = beside + (kind == "forward")
        peak = beside * kept + own
        most = max(most, (peak, beside, own, kind))
        levels.append((kind, index, rank.held.total + peak, rank.held.total + under_way * kept))
    _, beside, own, way = most
    count = ceil((beside + 1) / slices)
    return Memory(rank.held, count, kept, beside * kept, own, _largest_collective(rank), way, tuple(levels))


def _largest_collective(rank: Rank) -> int:
    """Bytes of the operand and the result of the largest collective of a micro-batch."""
    talks = [
        alive.event
        for done in (rank.forward, rank.backward)
        for segment in done.segments
        for alive in segment.events
        if isinstance(alive.event, Talk)
    ]
    return max((_both_ends(talk, len(rank.groups.get(talk.group, (0,)))) for talk in talks), default=0)


def _both_ends(talk: Talk, ranks: int) -> int:
    match talk.kind:
        case "all_gather":
            return talk.size * (1 + ranks)
        case "reduce_scatter":
            return talk.size + talk.size // ranks
        case _:
            return 2 * talk.size

"""What a rank of each stage holds: for all steps, for the micro-batches that are under way, and for a moment."""

from collections.abc import Sequence
from dataclasses import dataclass

from moec.compiler.cost.dry_run import Held, Rank
from moec.compiler.cost.recorder import Talk
from moec.compiler.program import Instruction


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one rank at its peak, by what they are for."""

    held: Held
    micro_batches: int
    """That are under way at the peak."""
    kept: int
    """Of each of them, from its forward to its backward."""
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


def memory_of(rank: Rank, schedule: Sequence[Instruction]) -> Memory:
    """Walk through the schedule of the rank's stage."""
    kept, levels, under_way = rank.forward.end, [], 0
    peaks = {"forward": rank.forward.peak, "backward": rank.backward.peak}
    most = (0, 0, 0, "forward")  # peak, micro-batches beside the one that is computed, its own bytes, what it does
    for instruction in schedule:
        if instruction.kind not in peaks:
            continue
        own = peaks[instruction.kind]
        beside = under_way if instruction.kind == "forward" else under_way - 1
        under_way = beside + (instruction.kind == "forward")
        peak = beside * kept + own
        most = max(most, (peak, beside, own, instruction.kind))
        levels.append((instruction.kind, instruction.index, rank.held.total + peak, rank.held.total + under_way * kept))
    _, beside, own, way = most
    return Memory(rank.held, beside + 1, kept, beside * kept, own, _largest_collective(rank), way, tuple(levels))


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

"""Weights that are shared out over the ranks of the batch (ZeRO-3, FSDP): gathered for every pass, turn by turn."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from moec.compiler.cost.dry_run import Held, Rank
from moec.compiler.cost.links import Spread, collective_seconds
from moec.compiler.cost.machine import Machine
from moec.compiler.cost.pass_time import PassTime, Piece
from moec.compiler.cost.practice import Practice
from moec.compiler.cost.practised import own_share


@dataclass(frozen=True, slots=True)
class Shared:
    """What the ranks of a group share out: in how many parts, over which of them, bytes of weights and gradients."""

    name: str
    parts: Spread
    replicas: Spread
    """The ranks that have the same part."""
    weights: float
    gradients: float


def shared_out(rank: Rank, groups: Mapping[str, Spread], practice: Practice) -> Iterator[Shared]:
    """Neighbours share; nothing where only the optimizer's state is shared."""
    if not practice.sharded_weights:
        return
    element = rank.held.gradients // max(1, rank.updated)
    for red in rank.reductions:
        group = groups[red.group]
        count = min(practice.sharded_state, group.ranks)
        near = min(count, group.per_node)
        parts = Spread(count, -(-count // near), near)
        copies = group.ranks // count
        together = max(1, group.per_node // count)
        replicas = Spread(copies, -(-copies // together), min(copies, together))
        weights = red.size * rank.held.weights / rank.held.gradients
        yield Shared(red.group, parts, replicas, weights, red.size * (practice.gradient_bytes or element) / element)


def held_by(rank: Rank, practice: Practice) -> Held:
    """Of weights its own part, and what is gathered: of the turn that is computed, and of the next; of gradients its
    own, and what is not scattered yet."""
    if not practice.sharded_weights:
        return rank.held
    share, turn = own_share(rank, practice), 1 / sum(segment.times for segment in rank.forward.segments)
    return replace(
        rank.held,
        weights=round(rank.held.weights * min(1.0, share + 2 * turn)),
        gradients=round(rank.held.gradients * min(1.0, share + turn)),
    )


def with_gathers(
    passes: tuple[PassTime, PassTime], rank: Rank, groups: Mapping[str, Spread], machine: Machine, practice: Practice
) -> tuple[PassTime, PassTime]:
    """A forward gathers weights, a backward gathers them again, and scatters gradients. One turn's are under way while
    another's is computed, if gradients overlap at all; what is not hidden is the first turn's, and what takes longer
    than the computing."""
    forward, backward = passes
    turns = sum(segment.times for segment in rank.forward.segments)
    gathers, scatters = [], []
    for shared in shared_out(rank, groups, practice):
        part = shared.weights / shared.parts.ranks
        gathers.append(_of_turns("all_gather", part, turns, shared, machine))
        scatters.append(_of_turns("reduce_scatter", shared.gradients, turns, shared, machine))
    return (
        _beside(forward, gathers, turns, practice.overlapped_gradients),
        _beside(backward, [*gathers, *scatters], turns, practice.overlapped_gradients),
    )


def _of_turns(kind: str, size: float, turns: int, shared: Shared, machine: Machine) -> Piece:
    """All of a pass, in a message for each turn."""
    whole = turns * collective_seconds(kind, size / turns, shared.parts, machine)
    return Piece(kind, whole, True, round(size), shared.name)


def _beside(done: PassTime, talks: list[Piece], turns: int, overlapped: bool) -> PassTime:
    whole = sum(piece.seconds for piece in talks)
    if not whole:
        return done
    exposed = max(whole - done.seconds, whole / turns) / whole if overlapped else 1.0
    pieces = [replace(piece, seconds=piece.seconds * exposed, hidden=piece.seconds * (1 - exposed)) for piece in talks]
    more = whole * exposed
    return replace(
        done,
        pieces=(*done.pieces, *((piece, 1) for piece in pieces)),
        seconds=done.seconds + more,
        talking=done.talking + more,
    )

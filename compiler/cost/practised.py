"""What a rank does and holds as a framework with other practices would have it."""

from collections.abc import Sequence
from dataclasses import replace

from moec.compiler.cost.dry_run import Rank
from moec.compiler.cost.fuse import fuse
from moec.compiler.cost.kernels import Kernel
from moec.compiler.cost.liveness import free_early
from moec.compiler.cost.passes import Pass
from moec.compiler.cost.practice import Practice, Recompute
from moec.compiler.cost.recompute import (
    Turn,
    copy_once,
    drop_intermediate,
    drop_returned,
    gather_again,
    recompute_attention,
    recompute_layer,
    recompute_operators,
)


def practised(rank: Rank, practice: Practice) -> Rank:
    """The default changes nothing."""
    if practice == Practice():
        return rank
    turns = _in_some_layers([_practised(turn, practice) for turn in _turns(rank)], practice)
    forward = Pass(tuple(turn.forward for turn in turns), 0)
    backward = Pass(tuple(turn.backward for turn in reversed(turns)), forward.end)
    spare = _spare(backward) if practice.spare_gradients else 0
    optimizer = round(rank.held.optimizer * own_share(rank, practice))
    held = replace(rank.held, gradients=rank.held.gradients + spare, optimizer=optimizer)
    return replace(rank, forward=forward, backward=backward, held=held)


def own_share(rank: Rank, practice: Practice) -> float:
    """Of the optimizer's state, what a rank has that shares it with those that have the same weights."""
    element = rank.held.gradients // max(1, rank.updated)
    shared = 0.0
    for red in rank.reductions:
        parts = min(practice.sharded_state, len(rank.groups[red.group]))
        shared += red.size / element * (1 - 1 / parts)
    return 1 - shared / max(1, rank.updated)


def _spare(backward: Pass) -> int:
    """Bytes of one tensor of each shape of a layer's weights, whose gradient a product of as many rows and columns is.
    Experts take turns with one."""
    shapes = {
        (*alive.event.sizes[1:3], alive.event.itemsize)
        for segment in backward.segments
        for alive in segment.events
        if segment.repeated and isinstance(alive.event, Kernel) and alive.event.gradient
    }
    return sum(rows * columns * itemsize for rows, columns, itemsize in shapes)


def _turns(rank: Rank) -> Sequence[Turn]:
    ways = rank.forward.segments, rank.backward.segments[::-1]
    assert len(ways[0]) == len(ways[1]), "what runs forward runs backward"
    return [Turn(forward, backward) for forward, backward in zip(*ways, strict=True)]


def _practised(turn: Turn, practice: Practice) -> Turn:
    if practice.fused:
        turn = copy_once(free_early(turn))
        forward, backward = fuse(turn.forward.events, turn.backward.events)
        turn = Turn(replace(turn.forward, events=forward), replace(turn.backward, events=backward))
        turn = drop_intermediate(turn)
    if practice.weighs_early:
        turn = drop_returned(turn)
    if practice.gathers_again:
        turn = gather_again(turn)
    return turn


def _in_some_layers(turns: Sequence[Turn], practice: Practice) -> list[Turn]:
    """The first layers are those in which something is computed again."""
    found: list[Turn] = []
    left = practice.recomputed_layers or sum(turn.forward.times for turn in turns)
    for turn in turns:
        if not turn.forward.repeated:
            found.append(_recomputed(turn, practice.recompute))
            continue
        count = min(left, turn.forward.times)
        left -= count
        found += [_times(_recomputed(turn, practice.recompute), count)] if count else []
        found += [_times(turn, turn.forward.times - count)] if count < turn.forward.times else []
    return found


def _times(turn: Turn, times: int) -> Turn:
    return Turn(replace(turn.forward, times=times), replace(turn.backward, times=times))


def _recomputed(turn: Turn, recompute: Recompute) -> Turn:
    match recompute:
        case "attention":
            return recompute_attention(turn)
        case "operators" if turn.forward.repeated:
            return recompute_operators(turn)
        case "full" if turn.forward.repeated:
            return recompute_layer(turn)
        case _:
            return turn

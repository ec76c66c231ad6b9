"""Joins sums of a backward: what one group sums anyway goes in one message where nothing waits for it yet."""

from collections.abc import Sequence
from dataclasses import replace

from moec.compiler.placement import Axes
from moec.compiler.program import Joined, Program, Reverse, Transposed, binds, reads


def join_reductions(program: Program) -> Program:
    """Every sum of a backward stands before its first reader, with the others over its axes that were waiting too.

    Requires: units with a backward (type_units).
    Ensures:  every gradient is made once, before it is read; no two sums over the same axes could be one message.
    """
    units = {name: replace(unit, backward=joined(unit.backward)) for name, unit in program.units.items()}
    return replace(program, units=units)


def joined(backward: Sequence[Reverse]) -> tuple[Reverse, ...]:
    """The instructions of one unit."""
    done: list[Reverse] = []
    waiting: dict[Axes, list[Transposed]] = {}
    for item in backward:
        needed = set(reads(item))
        for axes in [axes for axes, moves in waiting.items() if needed & {move.output for move in moves}]:
            done.append(_message(waiting.pop(axes)))
        if isinstance(item, Transposed) and item.of.move.backward == "all_reduce":
            waiting.setdefault(item.of.move.axes, []).append(item)
        else:
            done.append(item)
    done += [_message(moves) for moves in waiting.values()]
    assert {name for item in done for name in binds(item)} == {name for item in backward for name in binds(item)}
    return tuple(done)


def _message(moves: Sequence[Transposed]) -> Reverse:
    return moves[0] if len(moves) == 1 else Joined(tuple(moves))

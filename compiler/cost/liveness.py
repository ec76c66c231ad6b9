"""Memory that ends with its last use.

A rank's text names what passes between regions, and a name holds its tensor until its function returns. An autograd
that runs a whole model at once holds nothing but what a backward still reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from moec.compiler.cost.recompute import Turn
from moec.compiler.cost.recorder import Alive


@dataclass(frozen=True, slots=True)
class _Life:
    """Of one storage, in the places of a turn's events, forward and then backward."""

    size: int
    last: int
    """The last event that makes it or reads it."""
    ends: int
    """The event before which it ended."""


def free_early(turn: Turn) -> Turn:
    """End each storage that is made and ends within the turn after the last event that reads it."""
    events = [*turn.forward.events, *turn.backward.events]
    middle = len(turn.forward.events)
    less = [0] * len(events)  # by event
    kept = 0  # less of what the forward leaves
    for life in _lives(events):
        for place in range(life.last + 1, life.ends):
            less[place] += life.size
        if life.last < middle <= life.ends:
            kept += life.size
    held = [alive.held - by for alive, by in zip(events, less, strict=True)]
    forward = [replace(alive, held=now) for alive, now in zip(events[:middle], held[:middle], strict=True)]
    # A backward counts from what its forward leaves, which is that much less.
    backward = [replace(alive, held=now + kept) for alive, now in zip(events[middle:], held[middle:], strict=True)]
    return Turn(
        replace(turn.forward, events=tuple(forward), growth=turn.forward.growth - kept),
        replace(turn.backward, events=tuple(backward), growth=turn.backward.growth + kept),
    )


def _lives(events: Sequence[Alive]) -> Iterator[_Life]:
    sizes: dict[int, int] = {}
    last: dict[int, int] = {}
    for place, alive in enumerate(events):
        for number in alive.freed:
            if number in sizes:
                yield _Life(sizes.pop(number), last[number], place)
        for number, size in alive.made.items():
            if number not in last:
                sizes[number] = size
        last |= dict.fromkeys((*alive.made, *alive.reads), place)

"""One micro-batch through a stage as it was recorded, cut into turns of the loops over layers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from moec.compiler.cost.kernels import Kernel
from moec.compiler.cost.recorder import Alive, Mark, Storage, Talk

TURNS = 3
"""Of a loop over layers that are run: the first, one that stands for those in the middle, and the last."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What happens `times` in a row: a turn of a loop over layers, or all that happens but once.

    The bytes of its events count from the segment's start; each time it leaves `growth` more.
    """

    name: str
    times: int
    events: tuple[Alive, ...]
    growth: int
    repeated: bool = False
    """Whether the model has a list of such; an embedding and a head are not repeated."""

    @property
    def peak(self) -> int:
        return max((alive.held for alive in self.events), default=0)


@dataclass(frozen=True, slots=True)
class Pass:
    """A micro-batch through one stage, forward or backward; a backward begins with what its forward has kept."""

    segments: tuple[Segment, ...]
    start: int

    @property
    def end(self) -> int:
        return self.start + sum(segment.times * segment.growth for segment in self.segments)

    @property
    def peak(self) -> int:
        return max((level + segment.peak for segment, level in self.levels()), default=self.start)

    def levels(self) -> Iterator[tuple[Segment, int]]:
        """Of every segment the bytes from which it counts, in that of its turns in which these are most."""
        level = self.start
        for segment in self.segments:
            last = level + (segment.times - 1) * segment.growth
            yield segment, max(level, last)
            level = last + segment.growth


@dataclass(frozen=True, slots=True)
class Kept:
    """A tensor that every turn of a loop keeps for the backward."""

    loop: str
    turns: int
    storage: Storage


@dataclass(frozen=True, slots=True)
class Moment:
    """Of a pass, the one at which most is alive."""

    loop: str
    event: Kernel | Talk | None
    held: int
    alive: tuple[Storage, ...]
    """What the turn has made by then; of a backward, what all of it has."""

    @property
    def kept(self) -> int:
        """Bytes of what was there before."""
        return self.held - sum(storage.size for storage in self.alive)


@dataclass(frozen=True, slots=True)
class Loop:
    """What a loop is called, how many calls a turn of it makes, and how many turns."""

    name: str
    calls: int
    turns: int
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What happened forward and backward, the bytes that were kept between the two, and those that were sent on."""

    forward: Sequence[Alive]
    backward: Sequence[Alive]
    kept: int
    sent: int
    alive: Sequence[Storage]
    storages: Sequence[Storage]
    """All that were made, in both."""


def kept_of(done: MicroBatch, loops: Sequence[Loop]) -> tuple[Kept, ...]:
    """By loop; of one with several turns what the second has made stands for all: the first has what was received."""
    begins = [n for n, alive in enumerate(done.forward) if isinstance(alive.event, Mark) and alive.event.enters]
    begins = [0, *begins[1:], len(done.forward) + 1] if begins else [0, len(done.forward) + 1]
    found: list[Kept] = []
    call = 0
    for loop in loops:
        shown = min(loop.turns, TURNS)
        spans = [(begins[call + turn * loop.calls], begins[call + (turn + 1) * loop.calls]) for turn in range(shown)]
        call += shown * loop.calls
        first, last = spans[min(1, shown - 1)]
        mine = [storage for storage in done.alive if first <= storage.made < last]
        found += [Kept(loop.name, loop.turns, each) for each in mine]
    return tuple(found)


def fullest(done: MicroBatch, way: Pass, back: bool) -> Moment:
    """What is alive when a pass of a micro-batch holds most."""
    events = [*done.forward, *done.backward]
    segment, level = max(way.levels(), key=lambda each: each[1] + each[0].peak)
    if not segment.events:
        return Moment(segment.name, None, level, ())
    most = max(segment.events, key=lambda alive: alive.held)
    place = next(n for n, alive in enumerate(events) if alive.event is most.event)
    begins = len(done.forward) if back else _begin(events, place)
    freed = {number for alive in events[: place + 1] for number in alive.freed}
    mine = [each for each in done.storages if begins <= each.made <= place and each.number not in freed]
    assert not isinstance(most.event, Mark), "segments have none"
    return Moment(segment.name, most.event, level + most.held, tuple(mine))


def _begin(events: Sequence[Alive], place: int) -> int:
    """Of the call that this event is of."""
    return max(
        (n for n, alive in enumerate(events[:place]) if isinstance(alive.event, Mark) and alive.event.enters), default=0
    )


def segments_of(events: Sequence[Alive], loops: Sequence[Loop], start: int) -> tuple[Segment, ...]:
    """Cut what happened into turns of the loops, each from where its first call begins to where the next one does."""
    begins = [n for n, alive in enumerate(events) if isinstance(alive.event, Mark) and alive.event.enters]
    begins = [0, *begins[1:], len(events)] if begins else [0, len(events)]
    held = [start, *(events[n].held for n in begins[1:-1]), events[-1].held if events else start]
    found: list[Segment] = []
    call = 0
    for loop in loops or [Loop("stage", 1, 1)]:
        for turn in range(min(loop.turns, TURNS)):
            first, call = call, call + loop.calls
            kept = _without_marks(events[begins[first] : begins[call]])
            relative = tuple([replace(each, held=each.held - held[first]) for each in kept])
            times = loop.turns - 2 if turn == 1 and loop.turns >= TURNS else 1
            found.append(Segment(loop.name, times, relative, held[call] - held[first], loop.repeated))
    assert call == len(begins) - 1, "the stage calls its units in the order of its loops"
    return tuple(found)


def _without_marks(events: Sequence[Alive]) -> list[Alive]:
    """What ended before a mark ended before what comes after it."""
    found: list[Alive] = []
    freed: tuple[int, ...] = ()
    for alive in events:
        freed += alive.freed
        if not isinstance(alive.event, Mark):
            found.append(replace(alive, freed=freed))
            freed = ()
    return found

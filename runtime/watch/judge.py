"""Nothing moves: who of all ranks keeps the others waiting, or all of them, from the pulses of all."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from moec.runtime.watch.pulse import Pulse, steady
from moec.runtime.words import ranks_text

_LEAST = 0.5  # of the time-out, for which one that keeps others waiting has not made a call, or nothing has moved
_HELD_UP = {"data": "reading data", "saving": "saving"}
"""By phase."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A rank and what is the matter with it."""

    rank: int
    what: str
    stopped: bool = False  # its process does not run, and cannot end itself


def judge(world: int, earlier: Mapping[int, Pulse], later: Mapping[int, Pulse], timeout: float) -> Finding | None:
    """From two looks at all pulses, some seconds apart. None if ranks still move, or wait for one that does."""
    absent = [rank for rank in range(world) if rank not in later]
    if absent:
        return Finding(absent[0], f"has never been heard of{_others(absent)}", True)
    stopped = sorted(steady(earlier, later))
    if stopped:
        return Finding(stopped[0], f"has stopped: its process does not run{_others(stopped)}", True)
    if not any(pulse.waits for pulse in later.values()):
        return _standstill(later) if all(pulse.idle >= _LEAST * timeout for pulse in later.values()) else None
    away = [rank for rank, pulse in later.items() if not pulse.waits and pulse.still >= _LEAST * timeout]
    if away:
        worst = max(away, key=lambda rank: later[rank].still)
        called = f"has called no one for {later[worst].still:.0f} s while others wait for it"
        return Finding(worst, f"{called}{_doing(later[worst])}")
    if all(pulse.waits and pulse.still >= _LEAST * timeout for pulse in later.values()):
        return _deadlock(later)
    return None


def _deadlock(pulses: Mapping[int, Pulse]) -> Finding:
    """All wait: where the fewest do is where it went wrong."""
    places: dict[str, list[int]] = {}
    for rank, pulse in sorted(pulses.items()):
        places.setdefault(pulse.at or pulse.phase, []).append(rank)
    few, *others = sorted(places.items(), key=lambda place: len(place[1]))
    if not any(pulse.at for pulse in pulses.values()):
        return Finding(few[1][0], "and the others are there, and cannot reach each other: look at the network")
    said = "; ".join(f"{ranks_text(ranks)} in {at or 'the start'}" for at, ranks in others[:4])
    alone = f"waits, as do {said}" if others else "waits, as do all others, in one place"
    return Finding(few[1][0], f"{alone}: what they call does not meet{_others(few[1])}")


def _standstill(pulses: Mapping[int, Pulse]) -> Finding:
    """No one waits in a call, and nothing moves: of those that do not wait for another's part, who is so alone."""
    held_up = {rank: pulse for rank, pulse in pulses.items() if not pulse.for_others} or pulses
    places = Counter([(pulse.phase, pulse.at) for pulse in held_up.values()])
    rank = min(held_up, key=lambda rank: (places[held_up[rank].phase, held_up[rank].at], -held_up[rank].idle))
    same = "" if len(pulses) == 1 else ", nor has any other rank"
    return Finding(rank, f"has made no progress for {held_up[rank].idle:.0f} s{same}{_doing(held_up[rank])}")


def _doing(pulse: Pulse) -> str:
    """Of one that is held up by a thread of its own."""
    return f" (it is {_HELD_UP.get(pulse.phase, 'waiting')}, in {pulse.helper})" if pulse.helper else ""


def _others(ranks: list[int]) -> str:
    return f" (and so {ranks_text(ranks[1:])})" if len(ranks) > 1 else ""

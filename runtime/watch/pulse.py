"""What a rank says of itself: once who it is, and about twice a second how it goes."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import ModuleType


@dataclass(frozen=True, slots=True)
class Card:
    """Who a rank is."""

    host: str
    pid: int
    machine: str  # the same for processes that can see each other, and only for those
    stage: str  # `stage 1 (layers.2 to head)`, as soon as it is known


@dataclass(frozen=True, slots=True)
class Pulse:
    """How a rank goes. Seconds are of its own clock, which is not that of another."""

    number: int  # counts up, so one that stays the same is of a rank that is stopped
    step: int  # under way, counted from 1
    phase: str
    at: str  # the instruction, as `Sight` has it
    waits: bool  # for other ranks
    calls: int  # of other ranks, so far
    still: float  # seconds for which neither of the last two has changed
    idle: float  # seconds for which nothing at all has changed: no step, call, line, sample, byte of a checkpoint
    helper: str  # the line of the thread that it waits for, "" if for none
    for_others: bool  # that thread waits for other ranks
    now: float
    waited: float  # seconds, so far
    mostly: str  # the phase in which it was most often seen to work


def written(said: Card | Pulse) -> str:
    return json.dumps(asdict(said))


def read_card(text: bytes) -> Card:
    return Card(**json.loads(text))


def read_pulse(text: bytes) -> Pulse:
    return Pulse(**json.loads(text))


def machine() -> str:
    """Of this boot of this machine, and of this container's processes."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def stage_text(rank_module: ModuleType) -> str:
    """`stage 1 (layers.2 to head)`: from the first to the last unit that it has."""
    stage: ModuleType = rank_module.stage
    units = [prefix or kind for kind, prefixes in stage.UNITS for prefix in prefixes]
    words = units[0] if len(units) == 1 else f"{units[0]} to {units[-1]}"
    return f"{stage.__name__.replace('_', ' ')} ({words})"


def steady(earlier: Mapping[int, Pulse], later: Mapping[int, Pulse]) -> frozenset[int]:
    """Ranks whose pulse did not change in between: their processes do not run."""
    return frozenset(rank for rank, pulse in later.items() if rank in earlier and earlier[rank].number == pulse.number)

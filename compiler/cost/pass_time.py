"""How long a micro-batch takes on one stage, forward or backward, and what of it is computing and what talking."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moec.compiler.cost.dry_run import Pass
from moec.compiler.cost.kernels import Kernel, seconds
from moec.compiler.cost.links import Spread, collective_seconds
from moec.compiler.cost.machine import Machine
from moec.compiler.cost.practice import Practice
from moec.compiler.cost.recorder import Alive, Talk


@dataclass(frozen=True, slots=True)
class Piece:
    """What happens without a break: a region on the device, or one collective."""

    name: str
    seconds: float
    talks: bool
    size: int = 0
    group: str = ""


@dataclass(frozen=True, slots=True)
class PassTime:
    """The pieces of a pass in order, each with how often its segment runs."""

    pieces: tuple[tuple[Piece, int], ...]
    seconds: float
    computing: float
    talking: float

    def by_name(self, talks: bool) -> dict[str, float]:
        """Seconds of each region, or of each kind of collective."""
        found: dict[str, float] = defaultdict(float)
        for piece, times in self.pieces:
            if piece.talks == talks:
                found[piece.name] += times * piece.seconds
        return dict(found)


def pass_time(done: Pass, groups: Mapping[str, Spread], machine: Machine, practice: Practice) -> PassTime:
    """Regions take the larger of what the device needs and what the host needs to start its operators."""
    pieces: list[tuple[Piece, int]] = []
    for segment in done.segments:
        pieces += [(piece, segment.times) for piece in _pieces(segment.events, groups, machine, practice)]
    computing = sum(times * piece.seconds for piece, times in pieces if not piece.talks)
    talking = sum(times * piece.seconds for piece, times in pieces if piece.talks)
    return PassTime(tuple(pieces), computing + talking, computing, talking)


def _pieces(events: Sequence[Alive], groups: Mapping[str, Spread], machine: Machine, practice: Practice) -> list[Piece]:
    found: list[Piece] = []
    running = _Running()
    for alive in events:
        match alive.event:
            case Kernel() as kernel:
                if running.region != kernel.region:
                    found += running.ended(machine)
                    running = _Running(kernel.region)
                running.device += seconds(kernel, machine, practice.float8)
                running.operators += 1
            case Talk(kind=kind, group=group, size=size):
                found += running.ended(machine)
                running = _Running()
                found.append(Piece(kind, collective_seconds(kind, size, groups[group], machine), True, size, group))
            case _:
                pass
    return [*found, *running.ended(machine)]


@dataclass(slots=True)
class _Running:
    """A region that has not ended."""

    region: str = ""
    device: float = 0.0
    operators: int = 0

    def ended(self, machine: Machine) -> list[Piece]:
        if not self.operators:
            return []
        return [Piece(self.region, max(self.device, self.operators * machine.dispatch), False)]

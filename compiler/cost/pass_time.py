"""How long a micro-batch takes on one stage, forward or backward, and what of it is computing and what talking."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from moec.compiler.cost.kernels import Kernel, seconds
from moec.compiler.cost.links import Spread, collective_seconds
from moec.compiler.cost.machine import Machine
from moec.compiler.cost.passes import Pass, Segment
from moec.compiler.cost.practice import Practice
from moec.compiler.cost.recorder import Alive, Talk

STARVED = "waiting for the host"


@dataclass(frozen=True, slots=True)
class Piece:
    """What happens without a break: a region on the device, or one collective."""

    name: str
    seconds: float
    talks: bool
    size: int = 0
    group: str = ""
    hidden: float = 0.0
    """Seconds that a collective takes beside computing."""


@dataclass(frozen=True, slots=True)
class PassTime:
    """The pieces of a pass in order, each with how often its segment runs."""

    pieces: tuple[tuple[Piece, int], ...]
    seconds: float
    computing: float
    talking: float
    """Without what is hidden."""
    edges: tuple[float, float] = (0.0, 0.0)
    """Of its seconds, what comes before the layers and after them."""
    starved: float = 0.0
    """In which the device waits for the host to start operators."""

    @property
    def hidden(self) -> float:
        """What collectives take beside computing."""
        return sum(times * piece.hidden for piece, times in self.pieces)

    def by_name(self, talks: bool) -> dict[str, float]:
        """Seconds of each region, or of each kind of collective."""
        found: dict[str, float] = defaultdict(float)
        for piece, times in self.pieces:
            if piece.talks == talks:
                found[piece.name] += times * piece.seconds
        return dict(found)


def pass_time(done: Pass, groups: Mapping[str, Spread], machine: Machine, practice: Practice) -> PassTime:
    """The host starts operators while the device runs earlier ones: what counts of a segment is the slower of both."""
    pieces: list[tuple[Piece, int]] = []
    sums: list[float] = []
    for segment in done.segments:
        found = _segment(segment, groups, machine, practice)
        pieces += [(piece, segment.times) for piece in found]
        sums.append(segment.times * sum(piece.seconds for piece in found))
    talking = sum(times * piece.seconds for piece, times in pieces if piece.talks)
    starved = sum(times * piece.seconds for piece, times in pieces if piece.name == STARVED)
    computing = sum(sums) - talking - starved
    return PassTime(tuple(pieces), sum(sums), computing, talking, _edges(done.segments, sums), starved)


def beside_another(passes: tuple[PassTime, PassTime]) -> tuple[PassTime, PassTime]:
    """The exchange of experts' rows hides behind a forward and a backward of another micro-batch, and no longer than
    those compute."""
    hidden = sum(times * piece.hidden for done in passes for piece, times in done.pieces if _exchanges(piece))
    room = sum(done.seconds - done.talking - sum(done.edges) for done in passes)
    over = max(0.0, 1 - room / hidden) if hidden else 0.0
    return (_with_exposed(passes[0], over), _with_exposed(passes[1], over)) if over else passes


def _with_exposed(done: PassTime, share: float) -> PassTime:
    """With so much of what was hidden of exchanges not hidden."""
    more = share * sum(times * piece.hidden for piece, times in done.pieces if _exchanges(piece))
    pieces = [
        (replace(piece, seconds=piece.seconds + share * piece.hidden, hidden=(1 - share) * piece.hidden), times)
        if _exchanges(piece)
        else (piece, times)
        for piece, times in done.pieces
    ]
    return replace(done, pieces=tuple(pieces), seconds=done.seconds + more, talking=done.talking + more)


def _exchanges(piece: Piece) -> bool:
    return piece.talks and piece.name == "all_to_all"


def _edges(segments: Sequence[Segment], sums: Sequence[float]) -> tuple[float, float]:
    layers = [n for n, segment in enumerate(segments) if segment.repeated]
    return (sum(sums[: layers[0]]), sum(sums[layers[-1] + 1 :])) if layers else (0.0, 0.0)


def _segment(segment: Segment, groups: Mapping[str, Spread], machine: Machine, practice: Practice) -> Sequence[Piece]:
    found = _pieces(segment.events, groups, machine, practice)
    started = sum(isinstance(alive.event, Kernel | Talk) for alive in segment.events)
    late = 0.0 if practice.graphed else started * machine.dispatch - sum(piece.seconds for piece in found)
    return [*found, Piece(STARVED, late, False)] if late > 0 else found


def _pieces(events: Sequence[Alive], groups: Mapping[str, Spread], machine: Machine, practice: Practice) -> list[Piece]:
    found: list[Piece] = []
    running = _Running()
    for alive in events:
        match alive.event:
            case Kernel() as kernel:
                if running.region != kernel.region:
                    found += running.ended()
                    running = _Running(kernel.region)
                running.add(kernel, seconds(kernel, machine, practice.float8))
            case Talk() as talk:
                found += running.ended()
                found.append(_talk(talk, running, groups, machine, practice))
                running = _Running()
            case _:
                pass
    return [*found, *running.ended()]


def _talk(talk: Talk, before: "_Running", groups: Mapping[str, Spread], machine: Machine, practice: Practice) -> Piece:
    """A collective; where products hide it, behind the one that is computed beside it."""
    size = max(talk.size, talk.received) if talk.kind == "all_to_all" else talk.size
    whole = collective_seconds(talk.kind, size, groups[talk.group], machine)
    if talk.kind == "all_to_all":
        hidden = whole if practice.overlapped_experts else 0.0
    elif talk.again:
        hidden = min(whole, before.product)
    else:
        hidden = min(whole, before.gradient) if talk.kind in ("all_reduce", "reduce_scatter") else 0.0
    hidden = hidden if practice.overlapped_products or talk.kind == "all_to_all" else 0.0
    return Piece(talk.kind, whole - hidden, True, talk.size, talk.group, hidden)


@dataclass(slots=True)
class _Running:
    """A region that has not ended, its last product, and its last one that makes a gradient of a weight."""

    region: str = ""
    device: float = 0.0
    product: float = 0.0
    gradient: float = 0.0

    def add(self, kernel: Kernel, taken: float) -> None:
        self.device += taken
        self.product = taken if kernel.kind == "product" else self.product
        self.gradient = taken if kernel.gradient else self.gradient

    def ended(self) -> list[Piece]:
        return [Piece(self.region, self.device, False)] if self.device else []

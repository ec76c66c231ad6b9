"""Matches the calls of ranks that run on terms: with unbuffered sends, and collectives that wait for every member.

Ranks of a stage whose texts agree take every step together: the calls among them match because they are one call. So
one rank of each such class stands for all, and groups that lie within a class are complete with it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from greenlet import getcurrent, greenlet

from moec.compiler.check.execute import Call
from moec.compiler.check.faults import Fault, Wrong
from moec.compiler.check.terms import Term
from moec.runtime.communicator import Slot

Group = tuple[int, ...]
Program = Callable[[], None]


@dataclass(slots=True)
class _Waiting:
    """A rank in a call: what it still needs of whom, and what it has got."""

    call: Call
    missing: set[str] = field(default_factory=set)  # collective, send or receive
    result: object = None


class Engine:
    """The ranks that run, and those calls of theirs that have not met yet."""

    def __init__(self, groups: Callable[[int, str], Group], origin: Callable[[int, Call], str]) -> None:
        self._groups, self._origin = groups, origin
        self._home = getcurrent()
        self._greenlets: dict[int, greenlet] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._open: dict[Group, dict[int, Call]] = {}
        self._ready: list[int] = []
        self._ended: set[int] = set()

    def run(self, programs: Mapping[int, Program]) -> list[Fault]:
        """All programs to their ends, or to the first thing that is wrong."""
        self._greenlets = {rank: greenlet(program) for rank, program in programs.items()}
        self._ready = list(programs)
        try:
            while self._ready:
                rank = self._ready.pop(0)
                self._greenlets[rank].switch()
                if self._greenlets[rank].dead:
                    self._ended.add(rank)
            return [self._deadlock()] if self._waiting else []
        except Wrong as wrong:
            return [wrong.fault]
        finally:
            for unfinished in self._greenlets.values():
                if unfinished:
                    unfinished.throw()

    def alone(self, rank: int, group: str) -> bool:
        """Is a rank the only one of a group that runs here?"""
        return self._members(rank, group) == [rank]

    def talk(self, rank: int, call: Call) -> object:
        """Called by a rank: returns when its call has met its peers."""
        waiting = _Waiting(call)
        self._waiting[rank] = waiting
        if call.peer < 0:
            waiting.missing = {"collective"}
            self._join(rank, call)
        else:
            waiting.missing = {"send"} if call.kind == "send" else {"receive"}
            waiting.missing |= {"send"} if call.kind == "exchange" else set()
            self._pair(rank, call)
        if waiting.missing:
            self._home.switch()
        del self._waiting[rank]
        return waiting.result

    def _members(self, rank: int, group: str) -> list[int]:
        """Those of a group that run here."""
        return [member for member in self._groups(rank, group) if member in self._greenlets]

    # ---- Collectives.

    def _join(self, rank: int, call: Call) -> None:
        group = self._groups(rank, call.group)
        meeting = self._open.setdefault(group, {})
        for other, theirs in meeting.items():
            difference = _difference(call, theirs)
            if difference:
                who = f"rank {other} is in {self._told(other, theirs)}, rank {rank} in {self._told(rank, call)}"
                message = f"ranks {other} and {rank} differ in {difference}: {who}"
                raise Wrong("meeting", message, call.site)
            break
        meeting[rank] = call
        members = self._members(rank, call.group)
        if len(meeting) == len(members):
            del self._open[group]
            for member in members:
                self._done(member, "collective")

    # ---- From stage to stage.

    def _pair(self, rank: int, call: Call) -> None:
        peer = self._waiting.get(call.peer)
        if call.peer not in self._greenlets:
            raise Wrong("meeting", f"rank {rank} talks to rank {call.peer}, which is not at its side", call.site)
        if peer is None or peer.call.peer != rank:
            return
        if "send" in self._waiting[rank].missing and "receive" in peer.missing:
            self._deliver(rank, call.peer)
        if "receive" in self._waiting[rank].missing and "send" in peer.missing:
            self._deliver(call.peer, rank)

    def _deliver(self, source: int, target: int) -> None:
        sent, slots = self._waiting[source].call, self._waiting[target].call.slots
        if len(sent.operands) != len(slots):
            message = f"rank {source} sends {len(sent.operands)} tensors, and rank {target} receives {len(slots)}"
            raise Wrong("meeting", message, sent.site)
        self._waiting[target].result = tuple([_arrived(x, slot) for x, slot in zip(sent.operands, slots, strict=True)])
        self._done(source, "send")
        self._done(target, "receive")

    def _done(self, rank: int, what: str) -> None:
        waiting = self._waiting[rank]
        waiting.missing.discard(what)
        if not waiting.missing and self._greenlets[rank] is not getcurrent():
            self._ready.append(rank)

    def _told(self, rank: int, call: Call) -> str:
        return f"{call}{self._origin(rank, call)}"

    # ---- When nothing can move.

    def _awaited(self, rank: int) -> Sequence[int]:
        call = self._waiting[rank].call
        if call.peer >= 0:
            return [call.peer]
        there = self._open[self._groups(rank, call.group)]
        return [member for member in self._members(rank, call.group) if member not in there]

    def _deadlock(self) -> Fault:
        """Who waits for whom, until a rank comes again or has ended."""
        chain: list[int] = [min(self._waiting)]
        lines: list[str] = []
        site = self._waiting[chain[0]].call.site
        headline = "ranks wait for each other"
        while True:
            rank = chain[-1]
            awaited = self._awaited(rank)
            following = next((other for other in awaited if other in self._ended), awaited[0])
            lines.append(f"  rank {rank} waits for rank {following} in {self._told(rank, self._waiting[rank].call)}")
            if following in self._ended:
                lines.append(f"  rank {following} has ended")
                headline = "ranks wait for one that has ended"
                break
            if following in chain:
                start = chain.index(following)
                chain, lines = chain[start:], lines[start:]
                site = self._waiting[chain[0]].call.site
                break
            chain.append(following)
        return Fault("deadlock", "\n".join([headline, *lines]), site)


def _difference(call: Call, other: Call) -> str:
    if call.kind != other.kind:
        return "kind"
    if call.dims != other.dims:
        return "dims" if call.site is None or "of" not in dict(call.dims) else "what is summed"
    if len(call.operands) != len(other.operands):
        return "how many tensors"
    if any(x is not y for x, y in zip(call.operands, other.operands, strict=True)):
        return "value"
    return ""


def _arrived(x: Term, slot: Slot) -> Term:
    """What was sent, as the receiver declares it: with a gradient or without, in a shape and type that are compared."""
    return x if x.grad == slot.grad else x.terms.make("received", (slot.grad,), (x,), grad=slot.grad)

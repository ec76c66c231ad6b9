"""Every rank of a job in one process: a greenlet each, taking turns in one fixed order until all have ended.

A rank runs until it has to wait for others; what can go on is decided by the hub alone, so a run is the same each time.
Grad mode and the like belong to the thread, not to the greenlet: they must be as they were whenever a rank waits.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor

from moec.runtime import communicator
from moec.runtime.calls import Call, Collective, Group, Receive, Send, Site, ranks_text
from moec.runtime.communicator import WORLD, Op, Slot, Splits
from moec.runtime.hub import Hub, Mismatch

__all__ = ["Deadlock", "Mismatch", "simulate"]

Result = TypeVar("Result")

_RUNTIME = os.path.dirname(__file__) + os.sep


class Deadlock(RuntimeError):
    """Ranks wait and none can go on. `ranks` wait one for the next, in a circle unless the last of them has ended."""

    def __init__(self, message: str, ranks: tuple[int, ...]) -> None:
        super().__init__(message)
        self.ranks = ranks


def simulate(
    world: int, program: Callable[[int], Result], groups: Callable[[int], Mapping[str, tuple[int, ...]]]
) -> list[Result]:
    """What program(rank) returns on each rank, with real collectives and unbuffered sends between the ranks.

    groups(rank) names the groups of a rank, each with its ranks in group order.
    Raises Mismatch, Deadlock, or the first exception of a rank, with a note that says which and its last call.
    """
    ready = deque(range(world))
    hub = Hub(ready.append)
    everyone = tuple(range(world))
    home = getcurrent()
    ranks = [_Simulated(rank, {**groups(rank), WORLD: everyone}, hub, home) for rank in range(world)]
    results: dict[int, Result] = {}

    def run(rank: int) -> None:
        communicator.use(ranks[rank])
        try:
            results[rank] = program(rank)
        except Exception as error:
            error.add_note(f"on rank {rank}, {ranks[rank].history()}")
            raise

    greenlets = [greenlet(run) for _ in everyone]
    try:
        while ready:
            rank = ready.popleft()
            greenlets[rank].switch(rank)
        _check_ended(ranks, hub)
    finally:
        for unfinished in greenlets:
            if unfinished:  # started and not at its end
                unfinished.throw()
    return [results[rank] for rank in everyone]


@dataclass(frozen=True, slots=True)
class _Started:
    rank: "_Simulated"
    call: Collective

    def wait(self) -> Tensor:
        self.rank.block(self.call)
        assert self.call.result is not None
        return self.call.result


class _Simulated:
    """One rank of the process.  Satisfies `Communicator`."""

    __slots__ = ("_grad", "_groups", "_home", "_hub", "blocked", "last", "rank")

    def __init__(self, rank: int, groups: Mapping[str, tuple[int, ...]], hub: Hub, home: greenlet) -> None:
        self.rank = rank
        self.blocked: Call | None = None  # what the rank waits for
        self.last: Call | None = None
        self._hub = hub
        self._home = home
        self._grad = torch.is_grad_enabled()
        self._groups: dict[str, tuple[Group, int]] = {}
        for name, members in groups.items():
            self._groups[name] = hub.group(members), members.index(rank)

    def size(self, axes: str) -> int:
        return len(self._groups[axes][0].ranks)

    def coordinate(self, axes: str) -> int:
        return self._groups[axes][1]

    def all_reduce(self, x: Tensor, axes: str, op: Op, name: str, later: bool) -> _Started:
        return self._meet("all_reduce", op, x, axes, None, name, later)

    def all_reduce_in_place(self, x: Tensor, axes: str, name: str) -> None:
        x.copy_(self._meet("all_reduce", "sum", x, axes, None, name, later=False).wait())

    def all_gather(self, x: Tensor, axes: str, name: str, later: bool) -> _Started:
        return self._meet("all_gather", None, x, axes, None, name, later)

    def reduce_scatter(self, x: Tensor, axes: str, name: str, later: bool) -> _Started:
        return self._meet("reduce_scatter", "sum", x, axes, None, name, later)

    def all_to_all(self, x: Tensor, axes: str, splits: Splits | None, name: str, later: bool) -> _Started:
        return self._meet("all_to_all", None, x, axes, splits, name, later)

    def send(self, tensors: Sequence[Tensor], rank: int) -> None:
        self.block(self._send(tensors, rank))

    def receive(self, slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        return self._received(self._receive(slots, rank))

    def exchange(self, tensors: Sequence[Tensor], slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        send = self._send(tensors, rank)
        receive = self._receive(slots, rank)
        self.block(send)
        return self._received(receive)

    def block(self, call: Call) -> None:
        """Let others run until the call has its result."""
        if call.result is not None:
            return
        if torch.is_grad_enabled() is not self._grad:
            raise RuntimeError(f"a torch context manager is open across {call}")
        call.blocks = True
        self.blocked = call
        self._home.switch()
        self.blocked = None

    def history(self) -> str:
        return "before any call" if self.last is None else f"after its {self.last}"

    def _meet(
        self, kind: str, op: Op | None, x: Tensor, axes: str, splits: Splits | None, name: str, later: bool
    ) -> _Started:
        group, place = self._groups[axes]
        self.last = call = Collective(self.rank, kind, op, axes, x, splits, _site(name))
        self._hub.meet(call, group, place)
        if not later:
            self.block(call)
        return _Started(self, call)

    def _send(self, tensors: Sequence[Tensor], rank: int) -> Send:
        self.last = send = Send(self.rank, rank, tuple(tensors), _site(""))
        self._hub.send(send)
        return send

    def _receive(self, slots: Sequence[Slot], rank: int) -> Receive:
        self.last = receive = Receive(self.rank, rank, tuple(slots), _site(""))
        self._hub.receive(receive)
        return receive

    def _received(self, receive: Receive) -> tuple[Tensor, ...]:
        self.block(receive)
        assert receive.result is not None
        return receive.result


def _site(name: str) -> Site:
    """The innermost line outside of the runtime."""
    frame = sys._getframe(3)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_RUNTIME):
        frame = frame.f_back
    return Site(frame.f_code.co_filename, frame.f_lineno, name)


def _check_ended(ranks: Sequence[_Simulated], hub: Hub) -> None:
    blocked = {rank.rank: rank.blocked for rank in ranks if rank.blocked is not None}
    if blocked:
        raise _deadlock(blocked, ranks, hub)
    unmet = hub.unmet()
    if unmet:
        missing = hub.awaited(unmet[0])
        text = f"rank {unmet[0].rank} calls {unmet[0]}, and {ranks_text(missing)} never {_does(missing)}"
        raise Mismatch(text, (unmet[0].rank, *missing))


def _deadlock(blocked: Mapping[int, Call], ranks: Sequence[_Simulated], hub: Hub) -> Deadlock:
    """Follow who waits for whom until a rank comes again, or one that has ended."""
    chain = [min(blocked)]
    lines = []
    while True:
        rank = chain[-1]
        if rank not in blocked:
            lines.append(f"  rank {rank} has ended {ranks[rank].history()}")
            headline = "ranks wait for one that has ended"
            break
        awaited = hub.awaited(blocked[rank])
        following = next((r for r in awaited if r not in blocked), awaited[0])
        lines.append(f"  rank {rank} waits for {ranks_text(awaited)} in {blocked[rank]}")
        if following in chain:
            start = chain.index(following)
            chain, lines = chain[start:], lines[start:]
            headline = "ranks wait for each other"
            break
        chain.append(following)
    others = len(blocked) - sum(rank in blocked for rank in chain)
    if others > 0:
        lines.append(f"  {others} more {'rank waits' if others == 1 else 'ranks wait'}")
    return Deadlock("\n".join([headline, *lines]), tuple(chain))


def _does(ranks: tuple[int, ...]) -> str:
    return "does" if len(ranks) == 1 else "do"

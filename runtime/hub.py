"""Where the ranks of one process meet: matches every call with those of the peers, and does what they ask.

A collective happens when the last member of its group calls it; a send happens when its receive is there. Nothing is
buffered, so what passes here passes on any network. What does not match is reported at the call that shows it.
Sums run in group order.
"""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from moec.runtime.calls import Call, Collective, Group, Meeting, Receive, Send, ranks_text


class Mismatch(RuntimeError):
    """Ranks that should make one call make different ones."""

    def __init__(self, message: str, ranks: tuple[int, ...]) -> None:
        super().__init__(message)
        self.ranks = ranks


class Hub:
    """The calls of all ranks. `resume` is told of a rank that blocked and can go on."""

    def __init__(self, resume: Callable[[int], None]) -> None:
        self._resume = resume
        self._groups: dict[tuple[int, ...], Group] = {}
        self._sends: dict[tuple[int, int], deque[Send]] = {}
        self._receives: dict[tuple[int, int], deque[Receive]] = {}

    def group(self, ranks: tuple[int, ...]) -> Group:
        """The group of these ranks: one, whatever names they have for it."""
        found = self._groups.get(ranks)
        if found is None:
            found = self._groups[ranks] = Group(ranks)
        return found

    def meet(self, call: Collective, group: Group, place: int) -> None:
        """Put the call beside those of the other members; with the last of them, all have their results."""
        number = group.called[place]
        group.called[place] = number + 1
        call.version = call.operand._version
        meeting = group.open.get(number)
        if meeting is None:
            meeting = group.open[number] = Meeting([None] * len(group.ranks), call, len(group.ranks))
        else:
            difference = call.difference(meeting.first)
            if difference is not None:
                raise _unlike(meeting, call, group, difference)
        meeting.calls[place] = call
        meeting.missing -= 1
        if meeting.missing == 0:
            del group.open[number]
            self._complete([c for c in meeting.calls if c is not None], group)

    def send(self, send: Send) -> None:
        waiting = self._receives.get((send.rank, send.peer))
        if waiting:
            self._deliver(send, waiting.popleft())
        else:
            self._sends.setdefault((send.rank, send.peer), deque()).append(send)

    def receive(self, receive: Receive) -> None:
        waiting = self._sends.get((receive.peer, receive.rank))
        if waiting:
            self._deliver(waiting.popleft(), receive)
        else:
            self._receives.setdefault((receive.peer, receive.rank), deque()).append(receive)

    def awaited(self, call: Call) -> tuple[int, ...]:
        """The ranks that a call waits for."""
        if not isinstance(call, Collective):
            return (call.peer,)
        for group in self._groups.values():
            for meeting in group.open.values():
                if call in meeting.calls:
                    return tuple(rank for rank, c in zip(group.ranks, meeting.calls, strict=True) if c is None)
        return ()

    def unmet(self) -> tuple[Collective, ...]:
        """Collectives that were started and never completed; of each, the first call."""
        return tuple(meeting.first for group in self._groups.values() for meeting in group.open.values())

    def _complete(self, calls: list[Collective], group: Group) -> None:
        for call in calls:
            if call.operand._version != call.version:
                raise Mismatch(f"rank {call.rank} wrote its operand while it was in flight: {call}", (call.rank,))
        if calls[0].splits is not None:
            _check_splits(calls)
        for call, result in zip(calls, _COLLECTIVES[calls[0].kind](calls), strict=True):
            call.result = result
            if call.blocks:
                self._resume(call.rank)

    def _deliver(self, send: Send, receive: Receive) -> None:
        sent = [(x.shape, x.dtype) for x in send.tensors]
        if sent != [(slot.shape, slot.dtype) for slot in receive.slots]:
            text = f"what is sent is not what is received\n  rank {send.rank}: {send}\n  rank {receive.rank}: {receive}"
            raise Mismatch(text, (send.rank, receive.rank))
        send.result = ()
        pairs = zip(send.tensors, receive.slots, strict=True)
        receive.result = tuple([x.detach().clone().requires_grad_(slot.grad) for x, slot in pairs])
        for call in (send, receive):
            if call.blocks:
                self._resume(call.rank)


def _unlike(meeting: Meeting, call: Collective, group: Group, difference: str) -> Mismatch:
    agree = tuple(c.rank for c in meeting.calls if c is not None)
    verb = "calls" if len(agree) == 1 else "call"
    number = group.called[group.ranks.index(call.rank)]
    text = (
        f"collective {number} of {ranks_text(group.ranks)} differs in {difference}\n"
        f"  {ranks_text(agree)} {verb} {meeting.first}\n"
        f"  rank {call.rank} calls {call}"
    )
    return Mismatch(text, (*agree, call.rank))


def _check_splits(calls: list[Collective]) -> None:
    splits = [call.splits for call in calls if call.splits is not None]
    for i, (call, mine) in enumerate(zip(calls, splits, strict=True)):
        if sum(mine.send) != call.operand.shape[0]:
            raise Mismatch(f"rank {call.rank} sends {sum(mine.send)} rows of those in {call}", (call.rank,))
        for j, (peer, theirs) in enumerate(zip(calls, splits, strict=True)):
            if mine.send[j] != theirs.receive[i]:
                text = (
                    f"rank {call.rank} sends {mine.send[j]} rows to rank {peer.rank}, which expects "
                    f"{theirs.receive[i]}\n  {call}"
                )
                raise Mismatch(text, (call.rank, peer.rank))


def _all_reduce(calls: list[Collective]) -> list[Tensor]:
    total = _total(calls)
    return [total, *[total.clone() for _ in calls[1:]]]


def _all_gather(calls: list[Collective]) -> list[Tensor]:
    whole = torch.cat([call.operand for call in calls])
    return [whole, *[whole.clone() for _ in calls[1:]]]


def _reduce_scatter(calls: list[Collective]) -> list[Tensor]:
    return [part.clone() for part in _total(calls).tensor_split(len(calls))]


def _all_to_all(calls: list[Collective]) -> list[Tensor]:
    blocks = [
        call.operand.tensor_split(len(calls)) if call.splits is None else call.operand.split(call.splits.send)
        for call in calls
    ]
    return [torch.cat(arrivals) for arrivals in zip(*blocks, strict=True)]


def _total(calls: list[Collective]) -> Tensor:
    total = calls[0].operand.clone(memory_format=torch.contiguous_format)
    if calls[0].op == "max":
        for call in calls[1:]:
            torch.maximum(total, call.operand, out=total)
    else:
        for call in calls[1:]:
            total += call.operand
    return total


_COLLECTIVES: dict[str, Callable[[list[Collective]], list[Tensor]]] = {
    "all_reduce": _all_reduce,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "all_to_all": _all_to_all,
}

"""Collectives of a few processes on CPUs: everyone sends to everyone at once, and adds up what arrives.

gloo's own collectives pass blocks around a ring, and each goes through a thread of its own: many turns on a core, which
is what small messages cost where there are more ranks than cores. Measured with 8 ranks on 2 busy cores: an all_reduce
of 64 KiB takes 19 ms in gloo and 8 ms here, a reduce_scatter of 8 MiB 54 ms and 25 ms.

Sums run in group order, so that results are those of ranks in one process to the last bit.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, Work  # pyright: ignore[reportPrivateImportUsage]

from moec.runtime.communicator import Op

MOST_RANKS = 16  # of a group; with more, a ring has fewer messages in flight
_SMALL = 3 << 17  # bytes that a rank may send in one all_to_all, for which it copies them
_ONE_STEP = 2 << 20  # bytes that a rank may send in an all_reduce of one step; with more it takes two, and sends less
_PIECE = 1 << 22  # elements of a large buffer that are summed at a time, which bounds the memory it takes


@dataclass(slots=True)
class Exchange:
    """What was sent and is to arrive, and what is to be done then.  Satisfies `Started`."""

    works: Sequence[Work]
    finish: Callable[[], Tensor]

    def wait(self) -> Tensor:
        for work in self.works:
            work.wait()
        return self.finish()


class Peers:
    """The members of one group, as one of them sees them. Tensors are contiguous, and whole along dim 0."""

    __slots__ = ("_calls", "_group", "_me", "_order", "_size")

    def __init__(self, group: ProcessGroup, size: int, me: int) -> None:
        self._group = group
        self._size = size
        self._me = me
        self._order = [(me + step) % size for step in range(1, size)]  # not all to the same one first
        self._calls = 0

    def in_one_step(self, x: Tensor) -> bool:
        """Is an all_reduce of x an exchange of all of it? Else of parts, and then of their sums."""
        return x.nbytes * (self._size - 1) <= _ONE_STEP

    def all_reduce(self, x: Tensor, op: Op) -> Exchange:
        if self._is_small(x.nbytes):
            works, arrived = self._all_to_all(x.view(-1).repeat(self._size))
            return Exchange(works, lambda: self._combined(arrived.view(self._size, *x.shape), op))
        if not self.in_one_step(x):
            total = x.clone()
            return self._all_reduce_in_two(total, total.view(-1), op)
        parts = self._room(x)
        return Exchange(self._start([x] * self._size, parts), lambda: self._combined(parts, op))

    def all_reduce_in_place(self, x: Tensor) -> None:
        for piece in x.view(-1).split(_PIECE):
            if self.in_one_step(piece):
                piece.copy_(self.all_reduce(piece, "sum").wait())
            else:
                self._all_reduce_in_two(piece, piece, "sum").wait()

    def all_gather(self, x: Tensor) -> Exchange:
        if self._is_small(x.nbytes):
            works, arrived = self._all_to_all(x.view(-1).repeat(self._size))
            return Exchange(works, lambda: arrived.view(-1, *x.shape[1:]))
        whole = x.new_empty((self._size * x.shape[0], *x.shape[1:]))
        blocks = whole.tensor_split(self._size)
        blocks[self._me].copy_(x)
        return Exchange(self._start([x] * self._size, blocks), lambda: whole)

    def reduce_scatter(self, x: Tensor) -> Exchange:
        blocks = x.tensor_split(self._size)
        if self._is_small(blocks[0].nbytes):
            works, arrived = self._all_to_all(x)
            return Exchange(works, lambda: self._combined(arrived.tensor_split(self._size), "sum"))
        parts = self._room(blocks[self._me])
        works = self._start(blocks, parts)
        return Exchange(works, lambda: self._combined(parts, "sum"))

    def _is_small(self, sent: int) -> bool:
        """Is it worth a copy to have one call for all members? Measured with 2 ranks: half the time up to 256 KiB."""
        return sent * (self._size - 1) <= _SMALL

    def _all_to_all(self, leaving: Tensor) -> tuple[list[Work], Tensor]:
        arrived = torch.empty_like(leaving)
        return [self._group.alltoall_base(arrived, leaving, [], [])], arrived

    def _all_reduce_in_two(self, x: Tensor, flat: Tensor, op: Op) -> Exchange:
        """A reduce_scatter, and an all_gather of the parts, in x."""
        blocks = flat.tensor_split(self._size)
        mine = blocks[self._me]
        parts = self._room(mine)
        works = self._start(blocks, parts)
        second = self._next_tag()

        def gather() -> Tensor:
            mine.copy_(self._combined(parts, op))
            for work in self._start([mine] * self._size, blocks, second):
                work.wait()
            return x

        return Exchange(works, gather)

    def _room(self, mine: Tensor) -> list[Tensor]:
        """A tensor like mine from each member: mine itself, and where those of the others will be."""
        return [mine if member == self._me else torch.empty_like(mine) for member in range(self._size)]

    def _combined(self, parts: Iterable[Tensor], op: Op) -> Tensor:
        """Their sum or maximum, in memory of its own: the parts may be of one tensor, which it would keep."""
        combine = torch.maximum if op == "max" else torch.add
        first, second, *others = parts
        total = combine(first, second)
        for part in others:
            combine(total, part, out=total)
        return total

    def _start(self, outgoing: Sequence[Tensor], incoming: Sequence[Tensor], tag: int | None = None) -> list[Work]:
        """Send one tensor to each other member, and receive one of each. Members make their calls in the same order."""
        tag = self._next_tag() if tag is None else tag
        receives = [self._group.recv([incoming[peer]], peer, tag) for peer in self._order if incoming[peer].numel()]
        sends = [self._group.send([outgoing[peer]], peer, tag) for peer in self._order if outgoing[peer].numel()]
        return receives + sends

    def _next_tag(self) -> int:
        """Never 0, which is that of a send from stage to stage."""
        self._calls = self._calls % 0xFFFF + 1
        return self._calls

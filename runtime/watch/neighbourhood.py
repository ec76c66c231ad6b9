"""Watches over the processes of this machine: of one that ends, the others know at once."""

import os
from collections.abc import Iterator

from moec.runtime.watch import board, neighbours
from moec.runtime.watch.judge import Finding
from moec.runtime.watch.neighbours import Neighbour
from moec.runtime.watch.own import Own


class Neighbourhood:
    """Of one rank: the others on its machine, by descriptors that can be waited for."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self._held: dict[int, Neighbour] = {}
        self._unseen = [rank for rank in neighbours.local_ranks(own.rank, own.world) if rank != own.rank]
        self._killings = neighbours.killings_for_memory()
        self._parent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None  # another may come and go

    @property
    def descriptors(self) -> frozenset[int]:
        return frozenset(self._held)

    @property
    def absent(self) -> list[int]:
        """Ranks of this machine that have not been heard of yet."""
        return self._unseen

    @property
    def orphaned(self) -> bool:
        """Has torchrun gone?"""
        return self._parent is not None and os.getppid() != self._parent

    def meet(self) -> Finding | None:
        """Hold on to the others as they come. What is found is of one that has gone already."""
        for rank in tuple(self._unseen):
            card = board.card_of(self._own.store, rank)
            if card is None:
                continue
            self._unseen.remove(rank)
            if card.machine != self._own.card.machine or not card.machine:
                continue
            neighbour = neighbours.find(rank, card.pid)
            if neighbour is not None:
                self._held[neighbour.descriptor] = neighbour
            elif not board.has_left(self._own.store, rank) and neighbours.can_be_held():
                return Finding(rank, "is gone")
        return None

    def ended(self, descriptors: set[int]) -> Iterator[Finding]:
        """What is to be said of those whose descriptors are ready; nothing of one that has said so itself."""
        for descriptor in descriptors & self._held.keys():
            neighbour = self._held.pop(descriptor)
            what = neighbours.end_of(neighbour.pid, neighbours.killings_for_memory() > self._killings)
            os.close(descriptor)
            if not board.has_left(self._own.store, neighbour.rank):
                yield Finding(neighbour.rank, what)

    def kill(self, rank: int | None) -> None:
        """One that cannot end itself, if it is here."""
        for neighbour in self._held.values():
            if neighbour.rank == rank:
                neighbour.kill()

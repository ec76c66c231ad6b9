"""Ranks that are processes: the communicator over torch.distributed, gloo on CPUs and nccl on GPUs."""

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import HashStore, ProcessGroup, ReduceOp, Store, Work  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

from moec.runtime.attempt import store_of_attempt
from moec.runtime.communicator import WORLD, Op, Slot, Splits, Started
from moec.runtime.exchange import MOST_RANKS, Peers

# Their names since torch 2.13; the old ones warn there.
if hasattr(dist, "all_gather_single"):
    _all_gather, _reduce_scatter = dist.all_gather_single, dist.reduce_scatter_single
else:
    _all_gather, _reduce_scatter = dist.all_gather_into_tensor, dist.reduce_scatter_tensor

_MOST_SENDING = 4  # sends under way
_OPS = {"sum": ReduceOp.SUM, "max": ReduceOp.MAX}


@dataclass(frozen=True, slots=True)
class Member:
    """A group as one of its ranks sees it."""

    process_group: ProcessGroup
    size: int
    coordinate: int
    peers: Peers | None  # to talk to directly, in a small group on CPUs


@dataclass(slots=True)
class _Started:
    value: Tensor
    work: Work | None

    def wait(self) -> Tensor:
        if self.work is not None:
            self.work.wait()
        return self.value


@dataclass(slots=True)
class _Timed:
    """What was started, and whose time it is to wait for it."""

    started: Started
    ranks: "Distributed"

    def wait(self) -> Tensor:
        start = time.perf_counter()
        value = self.started.wait()
        self.ranks.waited += time.perf_counter() - start
        return value


class Distributed:
    """One process of the job.  Satisfies `Communicator`.

    `calls` counts those that were begun, `waited` the seconds in which this process was blocked in them.
    """

    __slots__ = ("_device", "_groups", "_sending", "calls", "rank", "waited")

    def __init__(self, rank: int, groups: Mapping[str, Member], device: torch.device) -> None:
        self.rank = rank
        self.calls = 0
        self.waited = 0.0
        self._groups = groups
        self._device = device
        self._sending: deque[Work] = deque()  # each keeps its tensor

    def size(self, axes: str) -> int:
        return self._groups[axes].size

    def coordinate(self, axes: str) -> int:
        return self._groups[axes].coordinate

    def all_reduce(self, x: Tensor, axes: str, op: Op, name: str, later: bool) -> Started:
        self.calls += 1
        member = self._groups[axes]
        if member.peers is not None and (member.peers.in_one_step(x) or not later):
            return _Timed(member.peers.all_reduce(x.contiguous(), op), self)
        total = x.clone(memory_format=torch.contiguous_format)
        start = time.perf_counter()
        work = dist.all_reduce(total, _OPS[op], group=member.process_group, async_op=later)
        return self._started(total, work, start)

    def all_reduce_in_place(self, x: Tensor, axes: str, name: str) -> None:
        self.calls += 1
        member, start = self._groups[axes], time.perf_counter()
        if member.peers is not None:
            member.peers.all_reduce_in_place(x)
        else:
            dist.all_reduce(x, group=member.process_group)
        self.waited += time.perf_counter() - start

    def all_gather(self, x: Tensor, axes: str, name: str, later: bool) -> Started:
        self.calls += 1
        member, x = self._groups[axes], x.contiguous()
        if member.peers is not None:
            return _Timed(member.peers.all_gather(x), self)
        whole = x.new_empty((member.size * x.shape[0], *x.shape[1:]))
        start = time.perf_counter()
        return self._started(whole, _all_gather(whole, x, group=member.process_group, async_op=later), start)

    def reduce_scatter(self, x: Tensor, axes: str, name: str, later: bool) -> Started:
        self.calls += 1
        member, x = self._groups[axes], x.contiguous()
        if member.peers is not None:
            return _Timed(member.peers.reduce_scatter(x), self)
        part = x.new_empty((x.shape[0] // member.size, *x.shape[1:]))
        start = time.perf_counter()
        return self._started(part, _reduce_scatter(part, x, group=member.process_group, async_op=later), start)

    def all_to_all(self, x: Tensor, axes: str, splits: Splits | None, name: str, later: bool) -> Started:
        self.calls += 1
        member, x = self._groups[axes], x.contiguous()
        if splits is None:
            there, here, rows = [], [], x.shape[0]
        else:
            there, here, rows = list(splits.send), list(splits.receive), sum(splits.receive)
        arrived = x.new_empty((rows, *x.shape[1:]))
        if self._device.type == "cpu":  # what the function below calls, without what it does around it
            return _Timed(_Started(arrived, member.process_group.alltoall_base(arrived, x, here, there)), self)
        start = time.perf_counter()
        work = dist.all_to_all_single(arrived, x, here, there, group=member.process_group, async_op=later)
        return self._started(arrived, work, start)

    def send(self, tensors: Sequence[Tensor], rank: int) -> None:
        self._transfer(rank, tensors, ())

    def receive(self, slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        return self.exchange((), slots, rank)

    def exchange(self, tensors: Sequence[Tensor], slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        arrivals = [torch.empty(slot.shape, dtype=slot.dtype, device=self._device) for slot in slots]
        self._transfer(rank, tensors, arrivals)
        return tuple([x.requires_grad_(slot.grad) for x, slot in zip(arrivals, slots, strict=True)])

    def close(self) -> None:
        """Leave the job. Groups that are still referred to would have threads when the interpreter ends, and abort."""
        for work in self._sending:
            work.wait()
        self._sending.clear()
        self._groups = {}
        dist.destroy_process_group()

    def _started(self, value: Tensor, work: Work | None, start: float) -> _Timed:
        """A call that blocks is done when it returns, and has waited since its start."""
        self.waited += time.perf_counter() - start
        return _Timed(_Started(value, work), self)

    def _transfer(self, peer: int, outgoing: Sequence[Tensor], incoming: Sequence[Tensor]) -> None:
        """The last few sends of a CPU may still be on their way when this returns."""
        self.calls += 1
        start = time.perf_counter()
        leaving = [x.contiguous() for x in outgoing]
        if self._device.type == "cuda":
            _transfer_batch(peer, leaving, incoming)
        else:
            self._transfer_singly(peer, leaving, incoming)
        self.waited += time.perf_counter() - start

    def _transfer_singly(self, peer: int, leaving: Sequence[Tensor], incoming: Sequence[Tensor]) -> None:
        world = self._groups[WORLD].process_group
        arriving = [world.recv([x], peer, 0) for x in incoming]
        self._sending.extend([world.send([x], peer, 0) for x in leaving])
        while len(self._sending) > _MOST_SENDING:
            self._sending.popleft().wait()
        for work in arriving:
            work.wait()


def find_store(rank: int, world: int, timeout: timedelta) -> Store:
    """Where the processes of the job find each other: torchrun's place, or for a single process one of its own."""
    if world == 1 and "MASTER_ADDR" not in os.environ:
        return HashStore()
    store, _, _ = next(rendezvous("env://", rank, world, timeout=timeout))
    return store_of_attempt(store)


def another_connection(store: Store) -> Store:
    """To the same store: calls of one connection wait for each other, also where one of them waits for long."""
    return store.clone()  # pyright: ignore[reportAttributeAccessIssue]


def connect(
    store: Store,
    rank: int,
    world: int,
    groups: Mapping[str, tuple[int, ...]],
    device: torch.device,
    timeout: timedelta,
) -> Distributed:
    """Join the job and make this rank's groups.

    Only its members take part in making a group, so that a job of thousands of ranks starts as fast as a small one.
    torch then names the group after its ranks and how many groups the rank has: so all ranks make one group in each of
    the same rounds, alone if they have none of that name. Groups of one name are disjoint, and cannot wait in a circle.
    """
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=world)
    everyone = dist.group.WORLD
    assert everyone is not None
    members = {WORLD: _member(everyone, world, rank, device)}
    for name in _all_names(store, rank, world, groups):
        ranks = groups.get(name, (rank,))
        members[name] = _member(_process_group(ranks, timeout), len(ranks), ranks.index(rank), device)
    return Distributed(rank, members, device)


def _all_names(store: Store, rank: int, world: int, groups: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Names of the groups of any rank, in one order. Whoever comes last collects them."""
    store.set(f"groups/{rank}", " ".join(groups))
    if store.add("groups/ranks", 1) == world:
        names = {name for other in range(world) for name in store.get(f"groups/{other}").decode().split()}
        store.set("groups", " ".join(sorted(names)))
    return store.get("groups").decode().split()


def _process_group(ranks: tuple[int, ...], timeout: timedelta) -> ProcessGroup:
    """In the order of `ranks`, which is not ascending where a dim goes over a faster axis first."""
    if list(ranks) == sorted(ranks):
        made = dist.new_group(list(ranks), timeout=timeout, use_local_synchronization=True)
    else:
        made = dist.new_group(list(ranks), timeout=timeout, use_local_synchronization=True, sort_ranks=False)
    assert isinstance(made, ProcessGroup), f"this rank is not one of {ranks}"
    return made


def _member(group: ProcessGroup, size: int, coordinate: int, device: torch.device) -> Member:
    """With a first collective, which sets up the connections and should not be one of the first step."""
    peers = Peers(group, size, coordinate) if device.type == "cpu" and 1 < size <= MOST_RANKS else None
    if size > 1:
        here = torch.ones(1, device=device)
        dist.all_reduce(here, group=group)
        assert here.item() == size
    return Member(group, size, coordinate, peers)


def _transfer_batch(peer: int, outgoing: Sequence[Tensor], incoming: Sequence[Tensor]) -> None:
    """Always as one batch: nccl keeps other connections for single sends, which would not meet a peer's batch."""
    sends = [dist.P2POp(dist.isend, x, peer) for x in outgoing]
    receives = [dist.P2POp(dist.irecv, x, peer) for x in incoming]
    for work in dist.batch_isend_irecv(sends + receives):
        work.wait()

"""What ranks say to each other, to be timed: collectives of several groups at once, and tensors that are sent."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from time import perf_counter
from typing import TypeAlias

import torch
from torch import Tensor

from moec.compiler.cost.calibrate.clock import Call
from moec.compiler.cost.calibrate.order import Device
from moec.compiler.cost.calibrate.timings import Message, MessageKind
from moec.runtime.communicator import WORLD, Communicator, Slot

_SIZES: dict[Device, tuple[int, ...]] = {
    "cpu": (2**12, 2**14, 2**16, 2**18, 2**20, 2**22, 2**24),
    "cuda": (2**12, 2**16, 2**18, 2**20, 2**22, 2**24, 2**26, 2**28),
}
"""Bytes of the whole."""

_WINDOW = 0.02  # seconds
_MOST_CALLS = 64

_Collective: TypeAlias = Callable[[Communicator, Tensor, str], object]

_COLLECTIVES: dict[MessageKind, _Collective] = {
    "all_reduce": lambda ranks, x, group: ranks.all_reduce(x, group, "sum", "x", False).wait(),
    "all_gather": lambda ranks, x, group: ranks.all_gather(x, group, "x", False).wait(),
    "reduce_scatter": lambda ranks, x, group: ranks.reduce_scatter(x, group, "x", False).wait(),
    "all_to_all": lambda ranks, x, group: ranks.all_to_all(x, group, None, "x", False).wait(),
}


def groups_of(rank: int, world: int) -> dict[str, tuple[int, ...]]:
    """Of 2, 4, 8 … ranks and of all, side by side, as far as they divide the ranks: those that hold this one."""
    sizes = sorted({*(size for size in (2, 4, 8, 16, 32) if world % size == 0), world} - {1})
    return {f"of{size}": tuple(range(first := rank // size * size, first + size)) for size in sizes}


def messages(
    ranks: Communicator, groups: Mapping[str, tuple[int, ...]], world: int, device: torch.device, every: int
) -> Iterator[Message]:
    """All ranks make the same calls, and all groups of one size talk at once."""
    for size in _SIZES["cuda" if device.type == "cuda" else "cpu"][::every]:
        x = torch.zeros(size // 4, device=device)
        for name, members in groups.items():
            even = x[: len(x) // len(members) * len(members)]
            for kind, collective in _COLLECTIVES.items():
                operand = even[: len(even) // len(members)] if kind == "all_gather" else even
                call = partial(collective, ranks, operand, name)
                yield Message(kind, len(members), operand.nbytes, _seconds(ranks, call, device))
        if world > 1 and world % 2 == 0:
            call = partial(_there_and_back, ranks, x)
            yield Message("send", 2, x.nbytes, _seconds(ranks, call, device) / 2)


def _there_and_back(ranks: Communicator, x: Tensor) -> None:
    """Between neighbours: each sends when the other's tensor has come."""
    peer, slot = ranks.rank ^ 1, Slot("x", tuple(x.shape), x.dtype, False)
    if ranks.rank < peer:
        ranks.send((x,), peer)
        ranks.receive((slot,), peer)
    else:
        ranks.receive((slot,), peer)
        ranks.send((x,), peer)


def _seconds(ranks: Communicator, call: Call, device: torch.device) -> float:
    """Of the slowest rank. The second call says how many make a window, the same for all ranks."""
    call()
    one = _longest(ranks, _run(call, 1, device), device)
    count = min(_MOST_CALLS, max(1, round(_WINDOW / one)))
    return _longest(ranks, _run(call, count, device), device) / count if count > 1 else one


def _run(call: Call, count: int, device: torch.device) -> float:
    _wait_for(device)
    started = perf_counter()
    for _ in range(count):
        call()
    _wait_for(device)
    return perf_counter() - started


def _longest(ranks: Communicator, seconds: float, device: torch.device) -> float:
    """Of all ranks, which also lets them start the next window together."""
    return ranks.all_reduce(torch.tensor([seconds], device=device), WORLD, "max", "seconds", False).wait().item()


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

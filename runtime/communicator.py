"""What a rank needs of the others: the interface behind the collectives, and which implementation is in use.

A communicator works on whole tensors along dim 0 and knows nothing of gradients; `collectives` puts the dims in order
and says which results carry a gradient. Groups have the names that the rank file gives them, plus `WORLD`.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

WORLD = "world"

Op = Literal["sum", "max"]


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor that crosses a stage boundary: what the receiver must know before it arrives."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    grad: bool


@dataclass(frozen=True, slots=True)
class Splits:
    """Rows of dim 0 that go to, and come from, each member of the group."""

    send: tuple[int, ...]
    receive: tuple[int, ...]


class Started(Protocol):
    """A collective under way. `wait` gives its result; the operands must not be written before."""

    def wait(self) -> Tensor: ...


class Communicator(Protocol):
    """One rank's way to talk. `later` says that work is done before the result is waited for; `name` is the value's.

    No result shares memory with an operand, except in place.
    """

    @property
    def rank(self) -> int: ...

    def size(self, axes: str) -> int: ...

    def coordinate(self, axes: str) -> int: ...

    def all_reduce(self, x: Tensor, axes: str, op: Op, name: str, later: bool) -> Started: ...

    def all_reduce_in_place(self, x: Tensor, axes: str, name: str) -> None:
        """The sum of everyone's x in x: for gradients, whose buffers are large."""
        ...

    def all_gather(self, x: Tensor, axes: str, name: str, later: bool) -> Started:
        """[n, ...] -> [size * n, ...], in group order."""
        ...

    def reduce_scatter(self, x: Tensor, axes: str, name: str, later: bool) -> Started:
        """[size * n, ...] -> [n, ...], the sum of everyone's block of this rank."""
        ...

    def all_to_all(self, x: Tensor, axes: str, splits: Splits | None, name: str, later: bool) -> Started:
        """Block j of dim 0 goes to member j; blocks arrive in group order. Equal blocks where no splits are given."""
        ...

    def send(self, tensors: Sequence[Tensor], rank: int) -> None: ...

    def receive(self, slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]: ...

    def exchange(self, tensors: Sequence[Tensor], slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        """Send and receive at once: neither waits for the other."""
        ...


_current: ContextVar[Communicator] = ContextVar("communicator")


def current() -> Communicator:
    """The communicator of the rank that calls."""
    return _current.get()


def use(communicator: Communicator) -> None:
    """From here on, in this context (a process, or the greenlet of one rank), collectives go through it."""
    _current.set(communicator)

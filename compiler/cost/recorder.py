"""What happens while a rank's text runs on tensors without memory, and what is alive meanwhile.

The text and the runtime under it are those of a real run. What a rank needs to know of the data is made up: the rows of
experts are balanced, times `skew` where they arrive from others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from moec.compiler.cost.kernels import Kernel

META = torch.device("meta")


@dataclass(frozen=True, slots=True)
class Talk:
    """One collective of a group. `size` is the bytes of a rank's operand, of an all_gather those of its own part."""

    kind: str
    group: str
    size: int
    region: str = ""
    later: bool = False
    result: int = 0
    """The number of its result's storage."""
    received: int = 0
    """Bytes of its result."""
    again: bool = False
    """Whether a framework does it a second time, for a backward, beside products."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The text enters a call of a unit, or is through with it."""

    name: str
    enters: bool


@dataclass(frozen=True, slots=True)
class Alive:
    """What happened, and the bytes that were alive after it."""

    event: Kernel | Talk | Mark
    held: int
    freed: tuple[int, ...] = ()
    """The numbers of the storages that ended since the event before."""

    @property
    def reads(self) -> dict[int, int]:
        """Storages by number, with bytes."""
        return dict(self.event.reads) if isinstance(self.event, Kernel) else {}

    @property
    def made(self) -> dict[int, int]:
        """Of what it writes, storages that were not there before the text ran."""
        if isinstance(self.event, Talk):
            return {self.event.result: self.event.received} if self.event.result > 0 else {}
        return {n: size for n, size in self.event.writes if n > 0} if isinstance(self.event, Kernel) else {}


Record: TypeAlias = list[Alive]


@dataclass(frozen=True, slots=True)
class Storage:
    """Memory of a tensor: as which shape it was made, in which region, after how many events."""

    number: int
    """Among all that were made, from 1."""
    shape: tuple[int, ...]
    itemsize: int
    region: str
    made: int
    size: int


@dataclass(slots=True)
class Recorder:
    """What has happened so far. Storages that were there before are not counted."""

    skew: float = 1.0
    gpu: bool = True
    events: Record = field(default_factory=list)
    region: str = ""
    storages: list[Storage] = field(default_factory=list)
    """All that were made, alive or not."""
    _sizes: dict[int, tuple[StorageWeakRef, Storage]] = field(default_factory=dict)
    _numbers: dict[int, int] = field(default_factory=dict)
    _before: int = 0
    _freed: list[int] = field(default_factory=list)

    def add(self, event: Kernel | Talk | Mark) -> None:
        held = self.held()
        self.events.append(Alive(event, held, tuple(self._freed)))
        self._freed.clear()

    def held(self) -> int:
        """Bytes of the storages that were made since the beginning and are alive."""
        return sum(storage.size for storage in self.alive())

    def alive(self) -> list[Storage]:
        """Those storages."""
        expired = torch.UntypedStorage._expired  # as StorageWeakRef.expired, for all of them after every event
        gone = [key for key, (storage, _) in self._sizes.items() if expired(storage.cdata)]
        for key in gone:
            del self._sizes[key]
            self._freed.append(self._numbers.pop(key))
        return [storage for _, storage in self._sizes.values()]

    def made(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key = storage._cdata
        known = self._sizes.get(key)
        if known is None or known[0].expired():
            if self._sizes.pop(key, None):  # an address that is used again is the latest
                self._freed.append(self._numbers[key])
            number, size = len(self.storages) + 1, storage.nbytes()
            made = Storage(number, tuple(x.shape), x.element_size(), self.region, len(self.events), size)
            self.storages.append(made)
            self._sizes[key] = StorageWeakRef(storage), made
            self._numbers[key] = number

    def number(self, x: Tensor) -> int:
        """Of a storage; 0 and below for those that were there before."""
        key = x.untyped_storage()._cdata
        if key not in self._numbers:
            self._numbers[key] = self._before
            self._before -= 1
        return self._numbers[key]

    def marked(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        """The function of a unit, with a mark before and after it."""

        def inside(*args: object) -> object:
            self.add(Mark(name, enters=True))
            result = function(*args)
            self.add(Mark(name, enters=False))
            return result

        return inside


def listed(recorder: Recorder, tensors: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    return tuple((recorder.number(x), bytes_of(x)) for x in tensors)


def bytes_of(x: Tensor) -> int:
    """What has to be read of a tensor: one that is expanded lies in memory once."""
    sizes = zip(x.shape, x.stride(), strict=True)
    return prod(size for size, stride in sizes if stride) * x.element_size() if x.numel() else 0

"""The calls that ranks in one process make of each other, as they are compared and as they read in a message."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from moec.runtime.communicator import Op, Slot, Splits


@dataclass(frozen=True, slots=True)
class Site:
    """The line of the program that makes a call, and the name of the value if the call gives one."""

    path: str
    line: int
    name: str

    def agrees(self, other: "Site") -> bool:
        """Is it the same line of the same file, or, in files of different stages or ranks, a value of one name?"""
        if self.path == other.path or _file(self.path) == _file(other.path):
            return self.line == other.line
        return self.name == other.name != ""

    def __str__(self) -> str:
        return f"{_file(self.path)}:{self.line}"


@dataclass(slots=True, eq=False)
class Collective:
    """One rank's call of a collective. Operand and result are whole tensors along dim 0."""

    rank: int
    kind: str
    op: Op | None
    axes: str
    operand: Tensor
    splits: Splits | None
    site: Site
    version: int = 0
    result: Tensor | None = None
    blocks: bool = False

    def difference(self, other: "Collective") -> str | None:
        """What keeps the two from being one collective. Ragged rows may differ in number."""
        if self.kind != other.kind:
            return "the kind"
        if self.op != other.op:
            return "the operation"
        if self.operand.dtype != other.operand.dtype:
            return "the dtype"
        ragged = self.splits is not None
        if ragged != (other.splits is not None):
            return "the splits"
        if self.operand.shape[ragged:] != other.operand.shape[ragged:]:
            return "the shape"
        if not self.site.agrees(other.site):
            return "the value: they are calls of different lines"
        return None

    def __str__(self) -> str:
        op = f"({self.op})" if self.op else ""
        name = f"`{self.site.name}` " if self.site.name else ""
        return f"{self.kind}{op} of {name}{_tensor(self.operand)} over {self.axes} at {self.site}"


@dataclass(slots=True, eq=False)
class Meeting:
    """One collective of a group: the calls that have come, by place in the group."""

    calls: list[Collective | None]
    first: Collective
    missing: int


@dataclass(slots=True, eq=False)
class Group:
    """Ranks in order; how many collectives each has called, and those that are not complete, by their number."""

    ranks: tuple[int, ...]
    called: list[int] = field(init=False)
    open: dict[int, Meeting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.called = [0] * len(self.ranks)


@dataclass(slots=True, eq=False)
class Send:
    """One rank's tensors for another."""

    rank: int
    peer: int
    tensors: tuple[Tensor, ...]
    site: Site
    result: tuple[()] | None = None
    blocks: bool = False

    def __str__(self) -> str:
        return f"send of {_listed([_tensor(x) for x in self.tensors])} to rank {self.peer} at {self.site}"


@dataclass(slots=True, eq=False)
class Receive:
    """One rank's readiness for the tensors of another."""

    rank: int
    peer: int
    slots: tuple[Slot, ...]
    site: Site
    result: tuple[Tensor, ...] | None = None
    blocks: bool = False

    def __str__(self) -> str:
        slots = [f"`{slot.name}` {_type(slot.dtype, slot.shape)}" for slot in self.slots]
        return f"receive of {_listed(slots)} from rank {self.peer} at {self.site}"


Call = Collective | Send | Receive


def ranks_text(ranks: tuple[int, ...]) -> str:
    """A few ranks in words: `rank 3`, `ranks 0, 1, 2 and 509 more`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    shown = ", ".join(str(rank) for rank in ranks[:8])
    return f"ranks {shown} and {len(ranks) - 8} more" if len(ranks) > 8 else f"ranks {shown}"


def _tensor(x: Tensor) -> str:
    return _type(x.dtype, x.shape)


def _type(dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    return f"{str(dtype).removeprefix('torch.')}{list(shape)}"


def _listed(items: list[str]) -> str:
    return ", ".join(items) or "nothing"


def _file(path: str) -> str:
    return path.rsplit("/", 1)[-1]

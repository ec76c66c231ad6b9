"""What one rank has measured, and what all ranks have measured together."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal, TypeAlias, TypeVar

from moec.compiler.cost.calibrate.order import Precision
from moec.compiler.cost.kernels import Kernel

MessageKind: TypeAlias = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send"]


@dataclass(frozen=True, slots=True)
class Timing:
    """Kernels that ran one after the other, and the seconds they took together."""

    precision: Precision
    kernels: tuple[Kernel, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Message:
    """A collective of so many ranks, or a tensor that is sent. `size` is the bytes of a rank's operand."""

    kind: MessageKind
    ranks: int
    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Processor:
    """What a rank runs on, as the system says it."""

    title: str
    units: int
    memory: int
    """Bytes, of one rank."""


@dataclass(frozen=True, slots=True)
class Measured:
    processor: Processor
    timings: tuple[Timing, ...]
    messages: tuple[Message, ...]
    dispatch: float | None
    """Of an operator on the host, where that is not the device."""
    share: float
    """Of the time that the ranks could have had, what they had: the rest went to other work on the machine."""


def read_measured(path: Path) -> Measured:
    """What a rank has written: a record of each dataclass above."""
    record = json.loads(path.read_text(encoding="utf-8"))
    timings = [
        Timing(each["precision"], tuple(map(_kernel, each["kernels"])), each["seconds"]) for each in record["timings"]
    ]
    messages = [Message(**each) for each in record["messages"]]
    processor = Processor(**record["processor"])
    return Measured(processor, tuple(timings), tuple(messages), record["dispatch"], record["share"])


def _kernel(record: dict[str, object]) -> Kernel:
    """JSON has no tuples."""
    return Kernel(**{name: tuple(value) if isinstance(value, list) else value for name, value in record.items()})  # pyright: ignore[reportArgumentType]


def quartile(seconds: Sequence[float]) -> float:
    """The lower one: other work on the machine can only make a call longer."""
    return sorted(seconds)[len(seconds) // 4]


_Timed = TypeVar("_Timed", Timing, Message)


def typical(passes: Sequence[Sequence[_Timed]]) -> tuple[_Timed, ...]:
    """Of every call, from several passes through all: what disturbs the machine for a while spoils one of its times."""
    return tuple([replace(same[0], seconds=quartile([x.seconds for x in same])) for same in zip(*passes, strict=True)])


def combine(ranks: Sequence[Measured]) -> Measured:
    """The median of all ranks, which have all measured the same; the first says what it was."""
    first = ranks[0]
    timings = zip(*[rank.timings for rank in ranks], strict=True)
    messages = zip(*[rank.messages for rank in ranks], strict=True)
    dispatch = [rank.dispatch for rank in ranks if rank.dispatch is not None]
    return Measured(
        first.processor,
        tuple(replace(same[0], seconds=median(each.seconds for each in same)) for same in timings),
        tuple(replace(same[0], seconds=median(each.seconds for each in same)) for same in messages),
        median(dispatch) if dispatch else None,
        median(rank.share for rank in ranks),
    )

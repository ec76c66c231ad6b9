"""Before the first collective: are all ranks there, and do they run the same job on the same data?"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol


class Board(Protocol):
    """Where all processes of a job can leave notes: a store of torch.distributed."""

    def set(self, key: str, value: str, /) -> None: ...

    def get(self, key: str, /) -> bytes: ...

    def add(self, key: str, amount: int, /) -> int: ...

    def check(self, keys: list[str], /) -> bool: ...

    def wait(self, keys: list[str], timeout: timedelta, /) -> None: ...


class Refusal(Exception):
    """The ranks must not start together; the message is one line for the user."""


def shake_hands(board: Board, rank: int, world: int, facts: Mapping[str, str], timeout: timedelta) -> None:
    """Raise Refusal on every rank whose facts differ from rank 0's, and on all if a rank does not come in time."""
    card = "\n".join(f"{name}: {fact}" for name, fact in facts.items())
    board.set(f"moec/{rank}", card)
    arrived = board.add("moec/arrived", 1)
    if arrived == world:
        board.set("moec/all", "1")
    try:
        board.wait(["moec/all"], timeout)
    except RuntimeError:
        missing = [other for other in range(world) if not board.check([f"moec/{other}"])]
        names = ", ".join(str(other) for other in missing[:8]) + (" and more" if len(missing) > 8 else "")
        seconds = timeout.total_seconds()
        raise Refusal(f"after {seconds:.0f} s, {len(missing)} of {world} ranks have not come: {names}") from None
    first = board.get("moec/0").decode()
    if first != card:
        other = dict(line.split(": ", 1) for line in first.split("\n"))
        name = next(name for name in facts if other.get(name) != facts[name])
        raise Refusal(f"{name} is {facts[name]} here, and {other.get(name)} on rank 0")

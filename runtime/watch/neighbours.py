"""The other ranks of this machine, as processes: one that ends is seen at once, and of what it died."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A process of this machine, held by a descriptor: its number may be another's after its end."""

    rank: int
    pid: int
    descriptor: int

    def kill(self) -> None:
        """Also one that is stopped."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)


def find(rank: int, pid: int) -> Neighbour | None:
    """None where the system has no such descriptors, or the process is gone already."""
    try:
        return Neighbour(rank, pid, os.pidfd_open(pid))
    except (OSError, AttributeError):
        return None


def can_be_held() -> bool:
    return hasattr(os, "pidfd_open")


def local_ranks(rank: int, world: int) -> Sequence[int]:
    """Those that torchrun started on this machine, which are consecutive; this one alone where it does not say."""
    if "LOCAL_RANK" not in os.environ:
        return (rank,)
    first = rank - int(os.environ["LOCAL_RANK"])
    return range(first, min(world, first + int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def end_of(pid: int, killed_for_memory: bool) -> str:
    """What a process ended by, which can be read until its parent has taken note of it."""
    status = _status(pid)
    if status is None:
        return "ran out of memory" if killed_for_memory else "was killed, ran out of memory or ended itself"
    number = status & 0x7F
    if not number:
        return f"ended early, with status {status >> 8}"
    if number == signal.SIGKILL:
        return "ran out of memory: the kernel killed it" if killed_for_memory else "was killed (SIGKILL)"
    name = signal_name(number)
    return f"crashed (segmentation fault, {name})" if number == signal.SIGSEGV else f"was ended by {name}"


def signal_name(number: int) -> str:
    """`SIGTERM`; those that programs agree on among themselves have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def killings_for_memory() -> int:
    """How often the kernel of this machine has killed a process because there was no memory left."""
    try:
        with open("/proc/vmstat", encoding="ascii") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0


def _status(pid: int) -> int | None:
    """As waitpid gives it: the last field of its line, which begins with a name that may have anything in it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[-1]) if fields[0] == "Z" else None

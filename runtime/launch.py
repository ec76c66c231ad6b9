"""How the processes of a job are started on one machine, and what the file of each is called."""

import os
import sys


def rank_name(rank: int, world: int) -> str:
    """Of the module of a rank: `rank_007`, as long as all others."""
    return f"rank_{rank:0{max(3, len(str(world - 1)))}d}"


def torchrun(processes: int, *program: str) -> list[str]:
    """The command that starts a program, and its arguments, in so many processes on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), *program]


def environment() -> dict[str, str]:
    """For `torchrun`: one thread a process, unless it is stated. Else torchrun sets that, and says so at length."""
    return {"OMP_NUM_THREADS": "1", **os.environ}

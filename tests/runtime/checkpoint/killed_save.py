"""Saves a checkpoint of one rank, and is killed at one of the calls that write: a program, run as a process of its own.

killed_save.py FOLDER STEP CALL    CALL counts from 1; 0 counts all of them, and prints how many there were
killed_save.py FOLDER STEP CALL half    a write is cut off in its middle
"""

import os
import signal
import sys
from pathlib import Path

import torch

from moec.checkpoint.folders import commit, fresh, prune
from moec.checkpoint.manifest import Progress, manifest_text
from moec.runtime.checkpoint.parts import joined, write_part
from moec.runtime.checkpoint.pieces import Piece
from moec.runtime.checkpoint.snapshot import Snapshot

WRITING = (
    "open",
    "write",
    "fsync",
    "rename",
    "replace",
    "mkdir",
    "unlink",
    "rmdir",
    "close",
    "remove",
    "truncate",
    "link",
)


def value_of(step):
    """The state of a step: every element is the step."""
    return torch.full((60, 50), float(step))


def save(folder, step):
    made = fresh(folder, step)
    value = value_of(step)
    halves = [Piece("weight/w", (60, 50), ((a, b), (0, 50)), value[a:b], True) for a, b in ((0, 20), (20, 60))]
    parts = []
    for rank, piece in enumerate(halves):
        snapshot = Snapshot([piece])
        snapshot.take()
        parts.append(write_part(snapshot, rank, made))
    commit(made, manifest_text(joined(parts, Progress(step, step, step, 0, "", {}), {}, {})))
    prune(folder, 1)


def interrupted(at, half):
    """The functions of os that write, counted."""
    calls = []

    def counting(name, function):
        def call(*arguments, **options):
            calls.append(name)
            if len(calls) == at:
                if half and name == "write":
                    function(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for name in WRITING:
        setattr(os, name, counting(name, getattr(os, name)))
    return calls


if __name__ == "__main__":
    calls = interrupted(int(sys.argv[3]), "half" in sys.argv)
    save(Path(sys.argv[1]), int(sys.argv[2]))
    print(len(calls), *sorted(set(calls)))

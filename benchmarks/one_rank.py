"""Time a step of the emitted program of a mesh of ones beside the plain module under autograd, in one process.

    python benchmarks/one_rank.py --hidden 64

They take turns on the same samples, and their losses must agree; what is printed is what step.py prints.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from emitted import Emitted, join
from rivals.workload import Rival
from rivals_agree import Plain
from step import arguments, report, sizes_of, take_turns

from moec.runtime.allocator import keep_freed_memory
from moec.runtime.data import Text
from moec.runtime.job import Input

MESH = {"pp": 1, "ep": 1, "tp": 1}


def main() -> None:
    sys.argv[1:1] = [f"{axis}={size}" for axis, size in MESH.items()]
    options = arguments()
    sizes = sizes_of(options)
    torch.set_num_threads(1)
    keep_freed_memory()
    os.environ.pop("MASTER_ADDR", None)
    folder, ranks = join(0, 1, MESH, sizes)
    inputs = tuple([Input(kind, kind, (sizes.seq,), sizes.vocab) for kind in ("tokens", "labels")])
    source = Text.read([Path(argparse.__file__)], inputs, 0)
    contestants: dict[str, Rival] = {"moec": Emitted(folder, source), "plain": Plain()}
    for contestant in contestants.values():
        contestant.setup(0, 1, MESH, sizes)
    report(MESH, sizes, take_turns(contestants, source, options.steps))
    ranks.close()


if __name__ == "__main__":
    main()

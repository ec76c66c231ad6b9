"""The emitted program as a contestant: the plan of a model and a mesh, compiled; its steps beside those of others."""

import importlib
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp

import torch
from rivals.workload import Batch, Sizes

from moec.runtime import communicator
from moec.runtime.data import Source
from moec.runtime.distributed import Distributed, connect, find_store
from moec.runtime.initial import Initial
from moec.runtime.job import read_job
from moec.runtime.place import place_of
from moec.runtime.run import Run

TIMEOUT = timedelta(minutes=5)

_SHARD = (("layers", ("pp",)), ("batch", ("dp", "ep")), ("experts", ("ep",)), ("heads, ffn, vocab", ("tp",)))


def plan_text(mesh: Mapping[str, int], s: Sizes) -> str:
    over = [(dims, ", ".join(axis for axis in axes if axis in mesh)) for dims, axes in _SHARD]
    shard = "".join(f"  {dims} over {axes}\n" for dims, axes in over if axes)
    clip = "" if s.clip is None else f"   clip = {s.clip}"
    return f"""model step {{
  layers = {s.layers}   hidden = {s.hidden}   heads = {s.heads}   vocab = {s.vocab}   seq = {s.seq}
  experts {{ count = {s.experts}   hidden = {s.expert_ffn}   top_k = 1   capacity = {float(s.capacity)} }}
}}
mesh {{ {" ".join(f"{axis} = {size}" for axis, size in mesh.items())} }}
shard {{
{shard}}}
schedule 1f1b {{ batch = {s.batch}   accumulate = {s.accumulate} }}
train {{ lr = {s.lr}   beta1 = {s.beta1}   beta2 = {s.beta2}   eps = {s.eps}{clip} }}
"""


def compile_plan(text: str) -> Path:
    """The folder of rank programs of a plan, as `moec compile` writes it."""
    folder = Path(mkdtemp())
    plan = folder / "step.plan"
    plan.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "moec", "compile", str(plan), "-o", str(folder / "step")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "step"


def join(rank: int, world: int, mesh: Mapping[str, int], sizes: Sizes) -> tuple[Path, Distributed]:
    """Compile on the first rank, and connect all as the emitted main.py does; torch.distributed is then ready."""
    store = find_store(rank, world, TIMEOUT)
    if rank == 0:
        store.set("folder", str(compile_plan(plan_text(mesh, sizes))))
    folder = Path(store.get("folder").decode())
    sys.path.insert(0, str(folder))
    groups = place_of(importlib.import_module(f"rank_{rank:03d}")).groups
    ranks = connect(store, rank, world, groups, torch.device("cpu"), TIMEOUT)
    communicator.use(ranks)
    return folder, ranks


class Emitted:
    """Satisfies `Rival`, once the job is joined."""

    def __init__(self, folder: Path, source: Source) -> None:
        self._folder, self._source = folder, source

    def setup(self, rank: int, world: int, mesh: Mapping[str, int], sizes: Sizes) -> None:
        self._program = importlib.import_module(f"rank_{rank:03d}")
        self.run = Run(self._program, read_job(self._folder / "plan.json"), Initial(sizes.seed), self._source)

    def step(self, batch: Batch) -> float:
        assert self.run.step == batch.step and self._source is batch.source
        self._program.step(self.run)
        assert self.run.result is not None
        return self.run.result.loss

"""tiny: a job of two stages as the compiler would emit it, on any dp and tp, in a folder of its own."""

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import pytest

from moec.runtime.data import Shuffled, Source, read_text
from moec.runtime.initial import Initial
from moec.runtime.job import Job, read_job
from moec.runtime.run import Run
from moec.runtime.simulated import simulate

BATCH, ACCUMULATE, SEQ, HIDDEN, FFN, VOCAB = 12, 2, 5, 6, 7, 11
Result = TypeVar("Result")


@dataclass(frozen=True)
class Tiny:
    """A job on pp 2 x dp x tp ranks, the program of each in its folder."""

    folder: Path
    dp: int
    tp: int

    @property
    def job(self) -> Job:
        return read_job(self.folder / "plan.json")

    @property
    def source(self) -> Shuffled:
        """This file, as a text."""
        return read_text([Path(__file__)], self.job.inputs, seed=7)

    def simulate(self, program: Callable[[ModuleType, Run], Result], source: Source | None = None) -> list[Result]:
        """What program(rank file, run) gives on all ranks in one process."""
        modules = [importlib.import_module(f"rank_{rank:03d}") for rank in range(2 * self.dp * self.tp)]
        job, source = self.job, source or self.source

        def run(rank: int) -> Result:
            return program(modules[rank], Run(modules[rank], job, Initial(7), source))

        return simulate(len(modules), run, lambda rank: modules[rank].GROUPS)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Callable[..., Tiny]]:
    """Makes the job. Its modules have the names that every emitted folder has: the last one made is the one that runs.

    The first lies in the folder of the test, later ones below it.
    """
    folders: list[Path] = []

    def make(dp: int, tp: int, precision: str = "fp64", clip: float | None = 1.0) -> Tiny:
        _forget(folders)
        folders.append(tmp_path / f"job_{len(folders)}" if folders else tmp_path)
        folders[-1].mkdir(exist_ok=True)
        job = Tiny(folders[-1], dp, tp)
        _write(job, precision, clip)
        sys.path.insert(0, str(job.folder))
        return job

    yield make
    _forget(folders)


def _forget(folders: list[Path]) -> None:
    sys.path[:] = [path for path in sys.path if Path(path) not in folders]
    for name in [name for name in sys.modules if name in ("sizes", "layer") or name.startswith(("stage_", "rank_"))]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _write(tiny: Tiny, precision: str, clip: float | None) -> None:
    for file in (Path(__file__).parent / "tiny").glob("*.py"):
        shutil.copy(file, tiny.folder)
    dtype = {"fp64": "float64", "fp32": "float32", "bf16": "bfloat16"}[precision]
    local = BATCH // ACCUMULATE // tiny.dp
    sizes = f"LOCAL_BATCH, SEQ, HIDDEN, FFN, VOCAB = {local}, {SEQ}, {HIDDEN}, {FFN}, {VOCAB}"
    (tiny.folder / "sizes.py").write_text(f"import torch\n\n{sizes}\nDTYPE = torch.{dtype}\n")
    for rank in range(2 * tiny.dp * tiny.tp):
        (tiny.folder / f"rank_{rank:03d}.py").write_text(_rank_file(tiny, rank))
    rate = {"lr": 0.01, "warmup": 0, "decay": "constant", "steps": None, "final_lr": 0.0}
    train = {**rate, "not_finite": "stop", "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
    plan = {
        "name": "tiny",
        "world_size": 2 * tiny.dp * tiny.tp,
        "schedule": {"batch": BATCH, "accumulate": ACCUMULATE},
        "train": {**train, "clip": clip, "precision": precision, "seed": 7},
        "inputs": {
            "tokens": {"kind": "tokens", "shape": [SEQ], "below": VOCAB},
            "labels": {"kind": "labels", "shape": [SEQ], "below": VOCAB},
        },
        "loss": "sum",
        "data": None,
        "model": None,
        "initial": None,
        "routers": [],
        "weights": {
            name: {"shape": list(shape), "stages": list(stages), "trainable": True, "saved": True, "also": []}
            for name, (shape, stages) in _weights().items()
        },
    }
    (tiny.folder / "plan.json").write_text(json.dumps(plan))


def _weights() -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes and stages."""
    of_layer = {
        "norm.weight": (HIDDEN,),
        "up.weight": (FFN, HIDDEN),
        "down.weight": (HIDDEN, FFN),
        "down.bias": (HIDDEN,),
    }
    layers = {f"layers.{i}.{name}": (shape, (i,)) for i in range(2) for name, shape in of_layer.items()}
    return {"embed.weight": ((VOCAB, HIDDEN), (0, 1)), **layers}


def _rank_file(tiny: Tiny, rank: int) -> str:
    dp, tp = tiny.dp, tiny.tp
    lane = rank % (dp * tp)
    base, stage = rank - lane, rank // (dp * tp)
    groups = {
        "tp": tuple(range(rank - rank % tp, rank - rank % tp + tp)),
        "dp": tuple(range(base + rank % tp, base + dp * tp, tp)),
        "tied": tuple(s * dp * tp + d * tp + rank % tp for s in range(2) for d in range(dp)),
    }
    padded = -(-FFN // tp)
    rows = f"[{rank % tp * padded}:{min(FFN, (rank % tp + 1) * padded)}, :] of [{FFN}, {HIDDEN}]"
    header = f"""\
import stage_{stage} as stage

RANK = {rank}
AXES = {{"pp": 2, "dp": {dp}, "tp": {tp}}}
COORDINATES = {{"pp": {stage}, "dp": {lane // tp}, "tp": {rank % tp}}}
GROUPS = {groups!r}
PREVIOUS, NEXT = {(None, rank + dp * tp) if stage == 0 else (rank - dp * tp, None)}
SLICES = {{"layer": {{"up": "{rows}"}}}}
"""
    return header + (_FIRST if stage == 0 else _LAST)


_FIRST = """

def step(run):
    run.count_valid(())
    y = stage.forward(run, 0)
    run.send(y, NEXT)
    y = stage.forward(run, 1)
    dy = run.exchange(y, stage.GRADIENTS_IN, NEXT)
    stage.backward(run, 0, dy)
    dy = run.receive(stage.GRADIENTS_IN, NEXT)
    stage.backward(run, 1, dy)
    stage.reduce_gradients(run)
    run.update()
"""

_LAST = """

def step(run):
    run.count_valid(stage.count(run), same="tp")
    x = run.receive(stage.ACTIVATIONS_IN, PREVIOUS)
    stage.forward(run, 0, x)
    dx = stage.backward(run, 0)
    x = run.exchange(dx, stage.ACTIVATIONS_IN, PREVIOUS)
    stage.forward(run, 1, x)
    dx = stage.backward(run, 1)
    run.send(dx, PREVIOUS)
    stage.reduce_gradients(run)
    run.update()
"""

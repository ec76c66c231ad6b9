"""The loss of held-out samples under emitted programs of all forms: that which training has for the same samples."""

from dataclasses import dataclass
from math import isclose
from pathlib import Path

import pytest

from moec.compiler.emit import emit
from moec.compiler.pipeline import compile_plan
from moec.compiler.verify.run_ranks import Setting, load_ranks, one_thread, written
from moec.compiler.verify.shrink import shrink
from moec.dsl import read_plan
from moec.runtime.data import Source
from moec.runtime.evaluate import Evaluation, held_out_loss
from moec.runtime.place import place_of
from moec.runtime.run import Run
from moec.runtime.simulated import simulate

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
FEW = [
    EXAMPLES / "convnet.plan",  # its loss is a mean, and a value passes a stage by
    EXAMPLES / "sequence_parallel.plan",  # labels are split, and every rank counts its own
]
ALL = [*sorted((HERE / "plans").glob("*.plan")), *sorted(EXAMPLES.glob("*.plan"))]
MANY = [path for path in ALL if path not in FEW and path.stem not in ("30b_moe", "llama_405b")]


@dataclass(frozen=True)
class Later:
    """The samples of a batch from one on."""

    whole: Source
    first: int
    count: int

    fingerprint = "later"

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int):
        return self.whole.sample(self.first + index)


@pytest.mark.parametrize("path", FEW, ids=lambda path: path.stem)
def test_equal(path: Path) -> None:
    assert_equal(path)


@pytest.mark.sweep
@pytest.mark.parametrize("path", MANY, ids=lambda path: path.stem)
def test_equal_of_all(path: Path) -> None:
    assert_equal(path)


def assert_equal(path: Path) -> None:
    """What a step says of its samples, it says before it moves the weights."""
    trial = shrink(compile_plan(read_plan(str(path))))
    with one_thread(), written(emit(trial.program, trial.sizing, double=True)) as folder:
        setting = Setting.of(folder)
        job = setting.job
        modules = load_ranks(folder, range(job.world_size), job.world_size, trial.units, edited=False)

        def program(number: int) -> tuple[float, float]:
            rank = modules[number]
            run = Run(rank, job, setting.values, setting.source)
            rank.step(run)
            held_out = Evaluation(Later(setting.source, run.cursor, job.batch), job.batch, 1, 1)
            loss = held_out_loss(rank, run, held_out)
            rank.step(run)
            assert run.result is not None
            return loss, run.result.loss

        losses = simulate(job.world_size, program, lambda rank: place_of(modules[rank]).groups)
    assert len(set(losses)) == 1
    assert isclose(*losses[0], rel_tol=1e-12), losses[0]

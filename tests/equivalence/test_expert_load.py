"""What a run counts of its experts is what the unsharded model decides, under every mesh."""

from pathlib import Path
from types import ModuleType

import pytest

from moec.compiler.emit import emit
from moec.compiler.pipeline import compile_plan
from moec.compiler.verify.expected import expected
from moec.compiler.verify.run_ranks import STEPS, Setting, load_ranks, one_thread, written
from moec.compiler.verify.shrink import Trial, exact
from moec.dsl import read_plan
from moec.runtime import routing
from moec.runtime.place import place_of
from moec.runtime.run import Run
from moec.runtime.simulated import simulate

MODEL = """
model m {{ layers = 4  hidden = 16  heads = 4  vocab = 32  seq = 8  ffn = 16
  experts {{ count = 4  hidden = 8  top_k = 2  capacity = {capacity}  every = 2  route = {route} }} }}
mesh {{ {mesh} }}
shard {{ {shard} }}
schedule {schedule} {{ batch = 16  accumulate = 2 }}
"""

CASES = {
    "copies on tp": MODEL.format(
        capacity="1", route="per_sequence", mesh="pp = 2 ep = 2 tp = 2", schedule="1f1b",
        shard="layers over pp  batch, experts over ep  heads, ffn, vocab over tp",
    ),
    "positions on tp": MODEL.format(
        capacity="1", route="per_microbatch", mesh="dp = 2 tp = 2", schedule="gpipe",
        shard="batch over dp  heads, seq, experts over tp",
    ),
    "dropless": MODEL.format(
        capacity="none", route="per_sequence", mesh="pp = 2 ep = 2", schedule="1f1b",
        shard="layers over pp  batch, experts over ep",
    ),
}  # fmt: skip

Told = tuple[list[dict[str, list[int]]], list[dict[str, int]], dict[str, list[int]]]


def test_is_what_the_unsharded_model_decides(tmp_path: Path) -> None:
    assert_decided("copies on tp", tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("case", [case for case in CASES if case != "copies on tp"])
def test_under_other_plans(case: str, tmp_path: Path) -> None:
    assert_decided(case, tmp_path)


def assert_decided(case: str, tmp_path: Path) -> None:
    (tmp_path / "m.plan").write_text(CASES[case])
    trial = exact(compile_plan(read_plan(str(tmp_path / "m.plan"))))
    with written(emit(trial.program, trial.sizing, double=True)) as folder, one_thread():
        setting = Setting.of(folder)
        assert [router.name for router in setting.job.routers] == ["layers.1", "layers.3"]
        counts, dropped = decided(trial, setting)
        for mine_counts, mine_dropped, total in run_all(trial, setting):
            assert mine_counts == counts
            assert mine_dropped == dropped
            assert total == {
                name: [sum(values) for values in zip(*(step[name] for step in counts), strict=True)]
                for name in ("layers.1", "layers.3")
            }
    assert case == "dropless" or any(sum(step.values()) for step in dropped)


def decided(trial: Trial, setting: Setting) -> tuple[list[dict[str, list[int]]], list[dict[str, int]]]:
    """Of every step, from the choices of the reference, which come by micro-batches and then by layers."""
    decisions = expected(trial, setting).decisions
    per_step = len(decisions) // STEPS
    counts, dropped = [], []
    for step in range(STEPS):
        of_step = decisions[step * per_step : (step + 1) * per_step]
        by_layer = {"layers.1": of_step[::2], "layers.3": of_step[1::2]}
        counts.append(
            {
                name: [sum(int((each.expert == expert).sum()) for each in some) for expert in range(4)]
                for name, some in by_layer.items()
            }
        )
        dropped.append({name: sum(int((~each.kept).sum()) for each in some) for name, some in by_layer.items()})
    return counts, dropped


def run_all(trial: Trial, setting: Setting) -> list[Told]:
    world = setting.job.world_size
    modules = load_ranks(setting.folder, range(world), world, trial.units, edited=False)

    def program(rank: int) -> Told:
        return watched(modules[rank], setting)

    return simulate(world, program, lambda rank: place_of(modules[rank]).groups)


def watched(module: ModuleType, setting: Setting) -> Told:
    run = Run(module, setting.job, setting.values, setting.source)
    routing.watch(run.expert_load)
    counts, dropped = [], []
    for _ in range(STEPS):
        module.step(run)
        counts.append(run.expert_load.counts())
        dropped.append(run.expert_load.dropped())
    return counts, dropped, run.expert_load.state()

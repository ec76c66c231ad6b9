"""Published runs become plans: of the model that was trained, on as many ranks as there were GPUs."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks/cost_model"))

from as_plan import NotExpressible, plan_of, plan_text, practice, why_not
from program_of import program_of
from published import Run, read, read_all

from moec.compiler.build_model import build_model
from moec.compiler.cost.dry_run import dry_run
from moec.compiler.cost.kernels import Kernel
from moec.compiler.program import Collective

RUNS = read_all()
GROUPS = ("korthikanti", "sc21", "vtrain", "simumax_b200", "moe_h100")
PLANNED = [run for group in GROUPS for run in RUNS[group] if not why_not(run)]
COUNTED = {(run.shape, run.params_b): run for run in PLANNED if run.params_b}.values()
"""One run of every model whose size is published."""

BY_ID = {run.id: run for runs in RUNS.values() for run in runs}

COMPILED = {
    "korthikanti-t5-22B-selective": [48],
    "simumax-b200-llama3_70b_l12_tp1_pp2_dp4_mbc4": [6, 6],
    "simumax-b200-deepseekv2_tp1_ep4_pp2_dp4_l4_mbc4": [2, 2],
}
"""Layers of every stage."""

MIXTRAL = {
    "id": "mixtral",
    "source": "nobody",
    "model": "Mixtral 8x7B",
    "gpu": "H100-80GB-SXM",
    "precision": "bf16",
    "seq": 4096,
    "gpus": 32,
    "tp": 2,
    "pp": 4,
    "ep": 8,
    "etp": 1,
    "micro_batch": 1,
    "global_batch": 64,
    "framework": "Megatron-Core",
    "tflops_per_gpu": 400,
    "tflops_convention": "full attention, model FLOPs",
}
"""A row of a survey, of a model that is known by name."""


@pytest.mark.parametrize("run", PLANNED, ids=lambda run: run.id)
def test_plan_is_of_the_run(run: Run):
    plan = plan_of(run)
    assert plan.mesh.world_size == run.gpus
    assert plan.schedule.batch == run.global_batch
    assert run.global_batch == run.micro_batch * run.layout.dp * plan.schedule.accumulate


@pytest.mark.parametrize("run", COUNTED, ids=lambda run: run.id)
def test_parameters_are_those_published(run: Run):
    """To all digits that the source prints."""
    digits = len(f"{run.params_b:g}".replace(".", "").strip("0"))
    first, more = _parameters(run, 1), _parameters(run, 2) - _parameters(run, 1)
    parameters = first + (run.shape.layers - 1) * more
    assert f"{parameters / 1e9:.{digits}g}" == f"{run.params_b:.{digits}g}"


def _parameters(run: Run, layers: int) -> int:
    plan = plan_of(replace(run, shape=replace(run.shape, layers=layers), layout=replace(run.layout, vpp=1)))
    return sum(weight.numel() for weight in build_model(plan).modules[0].parameters())


@pytest.mark.parametrize("id", COMPILED)
def test_stages_have_equal_layers(id: str):
    program = program_of(BY_ID[id])
    assert program.world_size == BY_ID[id].gpus
    assert [sum(call.repeated for call in stage.calls) for stage in program.stages] == COMPILED[id]


def test_positions_are_exchanged_for_heads():
    """Four exchanges of a layer: queries, keys and values, and what attention makes of them."""
    program = program_of(BY_ID["simumax-b200-llama3_405b_l4_tp2_cp4_pp1_dp1_seq32768_mbc4"])
    sent = [step.move for step in program.units["layer"].forward if isinstance(step, Collective)]
    assert [move.axes for move in sent if move.kind == "all_to_all"] == [("cp",)] * 4


@pytest.mark.parametrize("parts", [{"cp": 32}, {"cp": 16, "tp": 2}, {"tp": 32}])
def test_each_rank_attends_with_its_share_of_the_heads(parts: dict[str, int]):
    """Where there are fewer heads of keys than ranks, each rank has what its own heads of queries read."""
    run = BY_ID["simumax-b200-llama3_405b_l4_tp2_cp4_pp1_dp1_seq32768_mbc4"]
    layout = replace(run.layout, **{"tp": 1, "cp": 1, **parts}, dp=1, sequence_parallel="tp" in parts)
    rank = dry_run(program_of(replace(run, layout=layout, gpus=32, global_batch=4)))[0]
    kernels = [alive.event for segment in rank.forward.segments for alive in segment.events]
    attended = [kernel for kernel in kernels if isinstance(kernel, Kernel) and kernel.kind == "attention"]
    assert run.shape.kv_heads < 32 and attended
    assert {kernel.sizes[0] for kernel in attended} == {run.shape.heads // 32}
    assert {kernel.sizes[1] for kernel in attended} == {run.shape.seq}


def test_every_run_is_a_plan_or_says_why_not():
    for run in BY_ID.values():
        if why_not(run):
            with pytest.raises(NotExpressible, match=run.id):
                plan_text(run)
        else:
            plan_of(run)


def test_rows_of_surveys(tmp_path: Path):
    """Seconds follow from FLOP/s by the source's own convention."""
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([MIXTRAL, {**MIXTRAL, "gpus": None}]), encoding="utf-8")
    (run,) = read(file)
    hidden, layers, seq, vocab = 4096, 32, 4096, 32_000
    matrices = 2 * hidden**2 + 2 * hidden * 1024 + 3 * 2 * hidden * 14_336
    flops = 64 * seq * 6 * (layers * (matrices + 2 * seq * hidden) + hidden * vocab)
    assert run.seconds == pytest.approx(flops / (32 * 400e12))
    assert practice(run).sharded_state == 4
    assert plan_of(run).mesh.world_size == 32
    with pytest.raises(NotExpressible, match="of 2 ranks"):
        plan_of(replace(run, layout=replace(run.layout, etp=4)))

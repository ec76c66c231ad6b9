"""Rows of surveys as runs: whatever they write is read, said to be assumed, or left out with a reason."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks/cost_model"))

from as_plan import plan_of, practice, why_not
from frameworks import is_eager
from gpus import Gpu, gpu_of, per_node
from left_out import LeftOut
from practices import practice_of
from published import Run, read_rows
from words import Recomputed, Sharded, precision_of, recompute_of, sharded_of

from moec.compiler.cost.machine import read_table, resolve

LLAMA = {
    "id": "llama3-8b",
    "source": "nobody",
    "model": "llama3-8b",
    "layers": 32,
    "hidden": 4096,
    "heads": 32,
    "kv_heads": 8,
    "head_dim": 128,
    "ffn": 14336,
    "vocab": 128256,
    "seq": 8192,
    "gated_ffn": True,
    "gpu": "H100-80GB-SXM",
    "gpus": 64,
    "tp": 1,
    "pp": 1,
    "micro_batch": 1,
    "global_batch": 64,
    "precision": "bf16",
    "recompute": "none",
    "framework": "torchtitan",
    "tokens_per_s_per_gpu": 6000,
}
MEGATRON = {**LLAMA, "framework": "Megatron-Core", "tp": 2, "pp": 4}


def read(tmp_path: Path, *rows: dict[str, object]) -> tuple[list[Run], list[tuple[str, str]]]:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    return read_rows(file)


def run_of(tmp_path: Path, row: dict[str, object]) -> Run:
    (run,), left_out = read(tmp_path, row)
    assert not left_out
    return run


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("NVIDIA H100 80GB HBM3", Gpu("h100")),
        ("H100-SXM5", Gpu("h100")),
        ("NVIDIA H100", Gpu("h100")),
        ("8x H100 SXM (NVLink 900 GB/s)", Gpu("h100")),
        ("H100-96GB-HBM2e (500W, 2.4TB/s)", Gpu("h100", 96e9, 2.4e12)),
        ("A100-SXM4-40GB", Gpu("a100_40gb")),
        ("A100-40", Gpu("a100_40gb")),
        ("NVIDIA A100-SXM4-80GB", Gpu("a100")),
        ("A100 (memory size disputed: secondary says 40GB)", Gpu("a100")),
        ("Tesla V100-SXM2-16GB", Gpu("v100", 16e9)),
        ("NVIDIA GB200 NVL72", Gpu("gb200")),
        ("GB300", Gpu("gb300")),
        ("NVIDIA GH200 480GB", Gpu("gh200")),
        ("MI250X-128GB", Gpu("mi250x")),
        ("AMD Instinct MI300X", Gpu("mi300x")),
    ],
)
def test_a_gpu_by_its_names(name: str, found: Gpu):
    gpu = gpu_of(name)
    assert (gpu.entry, gpu.memory, gpu.bandwidth) == (found.entry, found.memory, found.bandwidth)


@pytest.mark.parametrize(
    ("name", "entry", "like", "fields"),
    [
        ("H800-80GB", "h800", "h100", ("link_bandwidth",)),
        ("A800 80GB SXM", "a800", "a100", ("link_bandwidth",)),
        ("NVIDIA H100 PCIe", "h100_pcie", "h100", ("compute", "memory_bandwidth", "units", "link_bandwidth")),
        ("H100 NVL 94GB", "h100_nvl", "h100", ("compute", "memory", "memory_bandwidth", "link_bandwidth")),
        ("NVIDIA H20", "h20", "h100", ("compute", "memory", "memory_bandwidth", "units")),
        ("GH200 (96 GB HBM3)", "gh200", "h100", ("memory", "memory_bandwidth")),
        ("MI325X", "mi325x", "mi300x", ("memory", "memory_bandwidth")),
        ("AMD Instinct MI355X", "mi355x", "mi300x", ("compute", "memory", "memory_bandwidth", "link_bandwidth")),
    ],
)
def test_a_variant_is_predicted_as_the_nearest_with_fields_of_its_own(
    name: str, entry: str, like: str, fields: tuple[str, ...]
):
    gpu = gpu_of(name)
    own, other = resolve(gpu.entry, read_table()), resolve(like, read_table())
    assert gpu.entry == entry and gpu.assumed.startswith(name)
    assert all(own[field] != other[field] for field in fields)


def test_nothing_is_known_of_other_gpus(tmp_path: Path):
    for name in ("TPU v5p", "Gaudi 2", "RTX 4090", "B100", "Ascend 910B"):
        with pytest.raises(LeftOut, match=name):
            gpu_of(name)
    runs, left_out = read(tmp_path, {**LLAMA, "gpu": "TPU v5p"}, LLAMA)
    assert [run.gpu for run in runs] == ["h100"]
    assert left_out == [("llama3-8b", "nothing is known of the GPU TPU v5p")]


def test_nodes_are_as_large_as_a_row_says():
    assert per_node("a100", 64, 16) == 4
    assert per_node("a100", 64, 8) == per_node("gb200", 64, 16) == per_node("a100", 4, 1) == 0


@pytest.mark.parametrize(
    ("said", "framework", "found"),
    [
        ("3", "Megatron-Core", Sharded(3)),
        ("0", "Megatron-Core", Sharded(0)),
        ("fsdp", "", Sharded(3)),
        ("ZeRO-3", "", Sharded(3)),
        ("full_shard", "", Sharded(3)),
        ("HSDP", "", Sharded(3, 8)),
        ("FSDP shard=64", "Megatron-Bridge/Core", Sharded(3, 64)),
        ("hybrid_shard", "", Sharded(3, 8)),
        ("_hybrid_shard_zero2", "", Sharded(2, 8)),
        ("shard_grad_op", "", Sharded(2)),
        ("zero 2", "", Sharded(2)),
        ("ZeRO-1", "", Sharded(1)),
        ("distributed optimizer", "", Sharded(1)),
        ("none", "FSDP", Sharded(0)),
        ("", "PyTorch FSDP2", Sharded(3)),
        ("", "torchtitan", Sharded(3)),
        ("", "Composer FSDP", Sharded(3)),
        ("", "DeepSpeed ZeRO-3", Sharded(3)),
        ("", "DeepSpeed", Sharded(0)),
        ("", "PyTorch DDP", Sharded(0)),
        ("", "Megatron-LM 2021", Sharded(0)),
        ("", "Megatron-Core", Sharded(1)),
    ],
)
def test_what_is_shared_out(said: str, framework: str, found: Sharded):
    assert sharded_of(said, framework) == found


def test_what_is_not_understood_of_sharing_is_said():
    assert "diagonally" in sharded_of("diagonally", "Megatron-Core").assumed


def test_deepspeed_alone_overlaps_and_fuses_attention(tmp_path: Path):
    run = run_of(tmp_path, {**LLAMA, "framework": "DeepSpeed ZeRO-3"})
    assert run.layout.zero == 3 and run.overlap and run.shape.fused_attention
    old = run_of(tmp_path, {**LLAMA, "framework": "Megatron-DeepSpeed"})
    assert old.layout.zero == 0 and not old.overlap and not old.shape.fused_attention


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("bf16", "half"),
        ("fp16 mixed", "half"),
        ("amp_bf16", "half"),
        ("BF16 with fp32 master weights", "half"),
        ("fp8", "fp8"),
        ("float8 (rowwise)", "fp8"),
        ("MXFP8", "fp8"),
        ("FP8-CS (FP8-MX)", "fp8"),
        ("NVFP4", "fp4"),
        ("mxfp4", "fp4"),
        ("fp32", "fp32"),
        ("tf32", "tf32"),
        ("int8", "int8"),
    ],
)
def test_precisions(said: str, found: str):
    assert precision_of(said) == (found, "")


def test_what_cannot_be_timed_is_left_out(tmp_path: Path):
    for precision in ("fp32", "tf32", "NVFP4", "int8"):
        assert why_not(run_of(tmp_path, {**LLAMA, "precision": precision})).startswith("products in")
    assert practice(run_of(tmp_path, {**LLAMA, "precision": "float8"})).float8
    assert "16 bits" in run_of(tmp_path, {**LLAMA, "precision": None}).assumed[0]


@pytest.mark.parametrize(
    ("said", "framework", "found"),
    [
        ("none", "Megatron-Core", Recomputed("none")),
        ("baseline-none", "Megatron-Core", Recomputed("none")),
        ("selective", "Megatron-Core", Recomputed("attention")),
        ("selective+SP", "Megatron-LM 2022", Recomputed("attention")),
        ("core_attn", "Megatron-Core", Recomputed("attention")),
        ('selective:["core_attn"]', "Megatron-Bridge/Core", Recomputed("attention")),
        ('selective:["mla_up_proj"]', "Megatron-Bridge/Core", Recomputed("none")),
        ("selective op", "torchtitan", Recomputed("operators")),
        ("selective", "torchtitan", Recomputed("operators")),
        ("op-level selective", "PyTorch FSDP", Recomputed("operators")),
        ("selective 2", "torchtitan", Recomputed("full", every=2)),
        ("full", "Composer FSDP", Recomputed("full")),
        ("baseline-full", "Megatron-LM 2022", Recomputed("full")),
        ("full (use_checkpoint true in repo configs)", "Megatron-DeepSpeed", Recomputed("full")),
        ("full uniform 1", "Megatron-Core", Recomputed("full")),
        ("full (every 2nd layer)", "torchtitan", Recomputed("full", every=2)),
        ("every other layer", "FMS", Recomputed("full", every=2)),
        ("1 in 3 layers", "FMS", Recomputed("full", every=3)),
        ("block 8 layers", "Megatron-Core", Recomputed("full", layers=8)),
        ("full, block, 5 layers", "NeMo", Recomputed("full", layers=5)),
        ("full (8 of 32 layers)", "Megatron-Core", Recomputed("full", share=0.25)),
        ("activation checkpointing", "DeepSpeed", Recomputed("full")),
    ],
)
def test_what_is_computed_again(said: str, framework: str, found: Recomputed):
    assert recompute_of(said, framework) == found


def test_what_is_not_understood_of_recomputation_is_said():
    assert "mostly" in recompute_of("mostly", "Megatron-Core").assumed
    assert "each 4" in recompute_of("uniform 4", "Megatron-Core").assumed
    assert '"moe"' in recompute_of('selective:["moe"]', "Megatron-Core").assumed


def test_layers_of_a_stage_in_which_all_is_computed_again(tmp_path: Path):
    found = [run_of(tmp_path, {**MEGATRON, "recompute": said}) for said in ("block 3", "every 2nd layer", "block 8")]
    assert [run.recompute for run in found] == ["full"] * 3
    assert [practice(run).recomputed_layers for run in found] == [3, 4, 0]


def test_tokens_of_all_gpus_are_a_measurement(tmp_path: Path):
    row = {**LLAMA, "tokens_per_s_per_gpu": None, "tokens_per_s": 64 * 6000}
    (first, second), left_out = read(tmp_path, LLAMA, row)
    assert first.seconds == second.seconds == 64 * 8192 / (64 * 6000) and not left_out
    assert read(tmp_path, {**row, "tokens_per_s": None})[1][0][1].startswith("no time")


def test_axes_that_are_not_stated(tmp_path: Path):
    assert run_of(tmp_path, {**LLAMA, "tp": None, "pp": None}).assumed == ("tp and pp not stated: 1 is assumed",)
    found = run_of(tmp_path, {**MEGATRON, "pp": None, "dp": 8})
    assert found.layout.pp == 4 and found.assumed[0].startswith("pp is not stated: 4 follows")
    runs, left_out = read(tmp_path, {**MEGATRON, "pp": None}, {**MEGATRON, "gpus": 60}, {**MEGATRON, "seq": None})
    assert not runs
    assert [reason for _, reason in left_out] == [
        "its pp not stated",
        "60 GPUs are no multiple of tp, pp and cp, 8",
        "its seq not stated",
    ]


def test_what_is_assumed_of_a_model_is_said(tmp_path: Path):
    run = run_of(tmp_path, {**LLAMA, "model": "Llama-3.1-8B", "vocab": None, "gated_ffn": None})
    assert run.shape.vocab == 128_256 and run.shape.gated
    assert len(run.assumed) == 2
    assert run_of(tmp_path, {**LLAMA, "model": "GPT", "vocab": None}).shape.vocab == 51_200


def test_a_name_of_a_row_is_no_path(tmp_path: Path):
    run = run_of(tmp_path, {**LLAMA, "id": "meta/llama 3: 8B"})
    assert plan_of(run).mesh.world_size == 64


def test_interleaved_slices_are_equal_and_turns_are_filled(tmp_path: Path):
    row = {**MEGATRON, "vpp": 4, "global_batch": 64}
    assert not why_not(run_of(tmp_path, row))
    assert not why_not(run_of(tmp_path, {**row, "layers": 30}))  # with embedding and head
    assert "slices" in why_not(run_of(tmp_path, {**row, "layers": 24}))
    assert "interleaved" in why_not(run_of(tmp_path, {**row, "global_batch": 48}))
    assert not why_not(run_of(tmp_path, {**row, "vpp": 1, "global_batch": 48}))


def test_kernels_of_plain_modules_are_not_fused(tmp_path: Path):
    assert is_eager("Composer FSDP", "", "half") and is_eager("FMS FSDP", "", "half")
    assert is_eager("torchtitan", "", "half") and not is_eager("torchtitan", "", "fp8")
    assert not is_eager("torchtitan", "torch.compile on", "half") and is_eager("torchtitan", "no torch.compile", "half")
    assert not is_eager("Megatron-Core FSDP", "", "half") and not is_eager("NeMo 24.07", "", "half")
    assert not practice(run_of(tmp_path, LLAMA)).fused
    assert practice(run_of(tmp_path, {**LLAMA, "notes": "FSDP + torch.compile"})).fused


def test_graphs_are_as_a_row_says(tmp_path: Path):
    bridge = {**MEGATRON, "framework": "Megatron-Bridge/Core"}
    for how, graphed in ((None, True), ('"none"', False), ('"transformer_engine"', True)):
        row = {**bridge, "other_measured": {"cuda_graph_impl": how} if how else {}}
        assert practice_of(run_of(tmp_path, row)).graphed == graphed

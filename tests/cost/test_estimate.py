"""The estimate, held against what torch itself counts and keeps."""

import re
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from moec.compiler.build_model import build_model
from moec.compiler.cost import Estimate, Practice, estimate, explain, machine_of, retarget
from moec.compiler.cost.balance import balance_of
from moec.compiler.cost.dry_run import dry_run
from moec.compiler.cost.explain import EXPLAINED
from moec.compiler.cost.formulas import Activations, elements_of_weights
from moec.compiler.cost.model_flops import active_parameters, model_flops
from moec.compiler.cost.passes import fullest
from moec.compiler.cost.recorder import Recorder
from moec.compiler.cost.routing import UNIFORM, read_routing
from moec.compiler.emit import FULL, emit
from moec.compiler.pipeline import compile_plan
from moec.compiler.program import Program
from moec.compiler.verify.run_ranks import Setting, load_ranks, written
from moec.dsl import read_plan
from moec.runtime import communicator
from moec.runtime.place import place_of
from moec.runtime.run import Run
from moec.runtime.simulated import simulate

ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "dense": """
        model m { layers = 3  hidden = 48  heads = 4  ffn = 96  vocab = 64  seq = 32  gated = true }
        mesh { dp = 1 }
        shard { batch over dp }
        schedule 1f1b { batch = 4  accumulate = 2 }""",
    "experts": """
        model m { layers = 3  hidden = 48  heads = 4  vocab = 64  seq = 32
                  experts { count = 4  hidden = 40  top_k = 2  capacity = 1.5 } }
        mesh { ep = 2 }
        shard { batch, experts over ep }
        schedule 1f1b { batch = 8  accumulate = 2 }""",
    "stages": """
        model m { layers = 5  hidden = 48  heads = 6  ffn = 96  vocab = 66  seq = 32 }
        mesh { pp = 2  tp = 3 }
        shard { layers over pp  heads, ffn, vocab over tp }
        schedule 1f1b { batch = 8  accumulate = 4 }""",
}


PROGRAMS: dict[tuple[str, ...], Program] = {}


def program_of(text: str, folder: Path, *overrides: str) -> Program:
    """Compiled once, in the folder of the test that asks first."""
    if (text, *overrides) not in PROGRAMS:
        path = folder / "m.plan"
        path.write_text(text, encoding="utf-8")
        PROGRAMS[text, *overrides] = compile_plan(read_plan(str(path), overrides))
    return PROGRAMS[text, *overrides]


def estimate_of(program: Program) -> Estimate:
    return estimate(program, machine_of(program.plan))


# ---- Memory.


@pytest.mark.parametrize("name", SMALL)
def test_a_micro_batch_keeps_what_autograd_saves(name: str, tmp_path: Path) -> None:
    """Real tensors of a real run: what autograd packs away, and what the text itself holds on to."""
    program = program_of(SMALL[name], tmp_path)
    saved = saved_bytes(program)
    for rank in dry_run(program, gpu=False):
        least, most = saved[rank.rank]
        assert least <= rank.forward.end <= most, f"stage {rank.stage}"
        assert most <= 1.2 * least  # so the two bounds are one figure, but for what is handed on


def saved_bytes(program: Program) -> dict[int, tuple[int, int]]:
    """Of every rank after the first forward: bytes that autograd saved, and these with what the stage gave away."""
    units = tuple(
        tuple(
            (call.unit, tuple(turn[place].prefix for turn in loop.turns))
            for loop in stage.loops
            for place, call in enumerate(loop.body)
        )
        for stage in program.stages
    )
    found: dict[int, tuple[int, int]] = {}
    with written(emit(program, FULL)) as folder:
        setting = Setting.of(folder)
        modules = load_ranks(folder, range(program.world_size), program.world_size, units, edited=True)

        kept: dict[int, dict[int, tuple[int, Tensor]]] = {rank: {} for rank in range(program.world_size)}
        weights: set[int] = set()

        def pack(x: Tensor) -> Tensor:
            """Of the rank whose turn it is: ranks take turns in one thread, and a hook belongs to the thread."""
            storage = x.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[communicator.current().rank][storage.data_ptr()] = storage.nbytes(), x.detach()
            return x

        def run_one(rank: int) -> None:
            run = Run(modules[rank], setting.job, setting.values, setting.source)
            held = [*(shard.value for shard in run.weights.shards.values()), *run.tables.values()]
            weights.update(x.untyped_storage().data_ptr() for x in held)
            stage, place = modules[rank].stage, place_of(modules[rank])
            before = () if place.previous is None else (run.receive(stage.ACTIVATIONS_IN, place.previous),)
            given = stage.forward(run, 0, *before) or ()
            if given:
                run.send(given, place.next)
            for entry in run.tape(0)._stack:  # the tape holds on to what it differentiates, saved or not
                for x in entry[1] if type(entry) is tuple else ():
                    pack(x)
            own = sum(size for size, _ in kept[rank].values())
            inputs = sum(x.nbytes for x in run.inputs(0).values()) if hasattr(stage, "INPUTS") else 0
            handed_on = sum(x.nbytes for x in (*given, *(before[0] if before else ())))
            found[rank] = own - inputs, own + inputs + handed_on + 1024

        with saved_tensors_hooks(pack, lambda x: x):
            simulate(program.world_size, run_one, lambda rank: place_of(modules[rank]).groups)
    return found


@pytest.mark.parametrize("name", SMALL)
def test_formulas_of_memory_give_its_numbers(name: str, tmp_path: Path) -> None:
    program = program_of(SMALL[name], tmp_path, "train.precision=bf16")
    ranks = dry_run(program)
    handed_on = 2 * max(rank.sent for rank in ranks)
    for rank, stage in zip(ranks, program.stages, strict=True):
        elements = elements_of_weights(program, stage).value
        padding = 16 * sum(len(program.units[call.unit].parameters) for call in stage.calls)
        assert elements <= rank.updated <= elements + padding
        assert (rank.held.weights, rank.held.gradients) == (2 * rank.updated, 4 * rank.updated)
        assert rank.held.optimizer == 12 * rank.updated
        kept = sum(formula.value * kept.turns for kept, formula in Activations(program, rank).kept())
        assert kept <= rank.forward.end <= kept + handed_on + 4096


@pytest.mark.parametrize("name", SMALL)
def test_the_fullest_moments_of_a_micro_batch_are_made_of_tensors(name: str, tmp_path: Path) -> None:
    program = program_of(SMALL[name], tmp_path)
    for rank in dry_run(program):
        made = Activations(program, rank)
        for way, before in (("forward", 0), ("backward", rank.forward.end)):
            done = getattr(rank, way)
            moment = fullest(rank.done, done, way == "backward")
            assert moment.held == done.peak
            assert 0 <= moment.kept <= max(before, *(level for _, level in done.levels()))
            formulas = made.alive(moment)
            assert sum(formula.value for _, formula in formulas) == moment.held - moment.kept
            assert any(formula.symbols for _, formula in formulas)


def test_a_stage_holds_as_many_micro_batches_as_it_is_stages_from_the_end(tmp_path: Path) -> None:
    program = program_of(SMALL["stages"], tmp_path)
    assert [memory.micro_batches for memory in estimate_of(program).memory] == [2, 1]
    program = program_of(SMALL["stages"], tmp_path, "schedule=gpipe")
    assert [memory.micro_batches for memory in estimate_of(program).memory] == [4, 4]


def test_the_worst_case_without_a_capacity_is_worse(tmp_path: Path) -> None:
    text = SMALL["experts"].replace("capacity = 1.5", "capacity = none")
    found = estimate_of(program_of(text, tmp_path))
    assert max(m.total for m in found.worst_memory) > found.memory_bytes
    found = estimate_of(program_of(SMALL["experts"], tmp_path))  # buffers of a capacity have one size
    assert found.worst_memory == found.memory


# ---- Computing.


def test_products_are_those_that_torch_counts(tmp_path: Path) -> None:
    """Of one rank with the whole model: its forward's products are those of the unsharded module."""
    program = program_of(SMALL["dense"], tmp_path)
    module = build_model(program.plan).modules[0]
    tokens = torch.zeros(2, 32, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter:
        module(tokens, tokens)
    attention = 3 * 2 * 2 * 2 * 4 * 32 * 32 * 12  # layers, products, FLOPs, batch, heads, positions twice, head_dim
    # What torch counts has whole scores; under a causal mask half of them are computed.
    whole = counter.get_total_flops()
    assert model_flops(program) == pytest.approx(3 * 2 * (whole - attention / 2), rel=1e-12)
    (rank,) = dry_run(program)
    forward = sum(
        segment.times * sum(getattr(alive.event, "flops", 0.0) for alive in segment.events)
        for segment in rank.forward.segments
    )
    assert forward == pytest.approx(whole - attention / 2, rel=1e-12)


def test_active_parameters_count_chosen_experts(tmp_path: Path) -> None:
    program = program_of(SMALL["experts"], tmp_path)
    experts = 3 * 2 * 4 * 40 * 48
    assert program.parameters - active_parameters(program) == experts // 2  # top_k is 2 of 4


def test_shares_of_a_step_add_up(tmp_path: Path) -> None:
    found = estimate_of(program_of(SMALL["stages"], tmp_path))
    for stage in found.time.stages:
        parts = stage.computing + stage.exposed + stage.waiting + stage.starved
        assert parts == pytest.approx(found.step_seconds, rel=1e-9)
    starved = sum(stage.starved for stage in found.time.stages) / len(found.time.stages) / found.step_seconds
    assert found.utilization + found.bubble + found.comm_overhead + starved == pytest.approx(1.0, rel=1e-9)


# ---- Experts.


def test_balance_of_uniform_choices(tmp_path: Path) -> None:
    program = program_of(SMALL["experts"], tmp_path)
    even = balance_of(program, UNIFORM)
    skewed = balance_of(program, read_routing("zipf:2", program))
    assert 0.8 < even.load_balance < 1
    assert even.dropped < skewed.dropped
    measured = tmp_path / "rows.json"
    measured.write_text("[10, 10, 0, 0]", encoding="utf-8")
    one = balance_of(program, read_routing(str(measured), program))
    capacity, tokens = 24, 32  # ceil(2 * 32 * 1.5 / 4) rows; all tokens of a sequence want two experts of one rank
    assert one.dropped == pytest.approx(1 - capacity / tokens)
    assert one.load_balance == pytest.approx(0.5)  # one of two ranks has all rows


def test_a_token_chooses_an_expert_once(tmp_path: Path) -> None:
    """With as many choices as experts every expert has every token, whatever is popular."""
    text = SMALL["experts"].replace("top_k = 2  capacity = 1.5", "top_k = 4  capacity = 1")
    program = program_of(text, tmp_path)
    for how in ("uniform", "zipf:2"):
        found = balance_of(program, read_routing(how, program))
        assert (found.load_balance, found.dropped, found.skew) == (1.0, 0.0, 1.0)


def test_fewer_rows_than_experts(tmp_path: Path) -> None:
    text = SMALL["experts"].replace("count = 4", "count = 64").replace("top_k = 2  capacity = 1.5", "top_k = 1")
    found = estimate_of(program_of(text.replace("seq = 32", "seq = 4"), tmp_path))
    assert found.step_seconds > 0 and found.balance.skew >= 1


# ---- The plan under other settings, without a second trace.


@pytest.mark.parametrize(
    "settings",
    [("mesh.tp=2", "mesh.pp=1"), ("schedule.accumulate=2",), ("schedule=gpipe",), ("shard.seq=tp", "mesh.tp=2")],
)
def test_a_retargeted_trace_is_the_plan_compiled(settings: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "m.plan"
    path.write_text(SMALL["stages"], encoding="utf-8")
    traced = compile_plan(read_plan(str(path)), "split_model")
    plan = read_plan(str(path), settings)
    moved, compiled = estimate_of(retarget(traced, plan)), estimate_of(compile_plan(plan))
    assert (moved.step_seconds, moved.memory_bytes) == (compiled.step_seconds, compiled.memory_bytes)
    assert moved.flops == compiled.flops


@pytest.mark.parametrize("name", EXPLAINED)
def test_every_figure_is_explained(name: str, tmp_path: Path) -> None:
    found = estimate_of(program_of(SMALL["experts"], tmp_path))
    said = explain(found, name)
    assert f"{found.program.plan.source.path}:" in said and "=" in said


def test_shapes_of_kept_tensors_are_formulas(tmp_path: Path) -> None:
    program = program_of(SMALL["stages"], tmp_path)
    rank = dry_run(program)[0]
    kept = Activations(program, rank).kept()
    named = [formula for _, formula in kept if formula.symbols]
    assert {"HIDDEN", "SEQ", "LOCAL_HEADS"} <= {symbol for formula in named for symbol in formula.symbols}
    assert all(prod(each.storage.shape) * each.storage.itemsize <= formula.value for each, formula in kept)


def test_memory_under_an_old_address_has_a_number_of_its_own() -> None:
    """A tensor that comes where one was that is gone is not taken for it."""
    recorder = Recorder()
    made, others = [], []
    for _ in range(20):
        x = torch.empty(3, device="meta")
        recorder.made(x)
        made.append(recorder.number(x))
        del x
        recorder.held()
        others.append(recorder.number(torch.empty(3, device="meta")))
    assert made == list(range(1, 21)) and all(number <= 0 for number in others)


def test_interleaving_holds_more(tmp_path: Path) -> None:
    """The first of p stages holds 1 + (p - 1) / (p v) times as many micro-batches (Narayanan et al., 2021)."""
    text = """
        model m { layers = 16  hidden = 64  heads = 4  ffn = 256  vocab = 64  seq = 64 }
        mesh { pp = 4 }
        shard { layers over pp }
        schedule 1f1b { batch = 16  accumulate = 16 }"""
    program = program_of(text, tmp_path)
    machine = machine_of(program.plan)
    plain, *interleaved = [estimate(program, machine, practice=Practice(interleave=v)).memory[0] for v in (1, 2, 4)]
    for v, memory in zip((2, 4), interleaved, strict=True):
        under_way = memory.activations / memory.kept / v + 1 / v
        assert under_way == pytest.approx(4 * (1 + 3 / (4 * v)), abs=1 / v)
        assert memory.total > plain.total


def test_exchanges_hide_behind_no_more_than_is_computed(tmp_path: Path) -> None:
    program = program_of(SMALL["experts"], tmp_path)
    slow = replace(machine_of(program.plan), network_bandwidth=1e6, link_bandwidth=1e6, link_peer_bandwidth=1e6)
    alone, beside = [estimate(program, slow, practice=Practice(overlapped_experts=both)) for both in (False, True)]
    exchange = alone.time.collectives["all_to_all"]
    assert beside.step_seconds < alone.step_seconds
    assert beside.step_seconds >= exchange
    assert beside.communication_seconds == pytest.approx(alone.communication_seconds)


def test_weights_that_two_units_read_count_once(tmp_path: Path) -> None:
    program = program_of(SMALL["dense"].replace("gated = true", "gated = true  tied = true"), tmp_path)
    found = estimate(program, machine_of(program.plan))
    lines = re.findall(r" (?:x +[\d,]+|calls) = ([\d,]+)$", explain(found, "parameters"), re.M)
    counts = [int(line.replace(",", "")) for line in lines]
    assert sum(counts) == found.parameters


def test_talk_is_explained_to_the_number(tmp_path: Path) -> None:
    """Latency, part, bytes and rate of every line give its seconds."""
    program = program_of(SMALL["stages"], tmp_path)
    text = explain(estimate(program, machine_of(program.plan)), "comm_overhead")
    scales = {"B": 1, "KiB": 2**10, "MiB": 2**20, "us": 1e-6, "ms": 1e-3, "GB/s": 1e9}
    lines = re.findall(r"  ([\d.]+) (\w+) \+ ([\d.]+) \* ([\d.]+) (\w+) / ([\d.,]+) (\S+) = ([\d.]+) (\w+)", text)
    assert len(lines) > 5 and "message" in text and "over world" in text
    for late, a, part, size, b, rate, c, seconds, d in lines:
        wanted = float(late) * scales[a] + float(part) * float(size) * scales[b] / (float(rate) * scales[c])
        assert float(seconds) * scales[d] == pytest.approx(wanted, rel=2e-2)

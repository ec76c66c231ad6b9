"""A published run as a plan of moec, and what its framework did beyond moec's own program."""

import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from frameworks import is_eager
from model_text import model_text
from published import Run

from moec.compiler.cost.practice import Practice
from moec.dsl import Plan, read_plan

PRECISIONS = {
    "fp4": "products in 4 bits",
    "tf32": "products in TF32, of which the hardware table has no rate",
    "fp32": "products in 32 bits, of which no rate was ever measured",
}
"""What is not timed; other precisions than these and 8 and 16 bits are not known."""


class NotExpressible(ValueError):
    """A run that no plan of moec is."""


def why_not(run: Run) -> str:
    """What keeps a run from being a plan; empty if nothing does."""
    layout, shape = run.layout, run.shape
    reasons = ["layers that attend to a window of positions"] if shape.window else []
    if run.precision not in ("half", "fp8"):
        reasons.append(PRECISIONS.get(run.precision, f"products in {run.precision}"))
    if run.global_batch % (run.micro_batch * layout.dp):
        reasons.append(f"{run.global_batch} sequences in micro-batches of {run.micro_batch} on {layout.dp} replicas")
    if shape.heads % (layout.cp * layout.tp):
        reasons.append(f"{shape.heads} heads over {layout.cp} * {layout.tp} ranks")
    if shape.kv_heads % layout.tp and layout.tp % shape.kv_heads:
        reasons.append(f"{shape.kv_heads} heads of keys over {layout.tp} ranks")
    if layout.etp not in (1, layout.tp):
        reasons.append(f"experts split over {layout.etp} of {layout.tp} ranks")
    return ", ".join([*reasons, *_why_not_interleaved(run)])


def _why_not_interleaved(run: Run) -> list[str]:
    """What Megatron-LM's interleaved schedule refuses: slices of different sizes, where the embedding, the head and
    layers that predict further ahead may stand for a layer each, and micro-batches that do not fill all turns."""
    layout = run.layout
    slices, reasons = layout.pp * layout.vpp, []
    if layout.pp == 1 or layout.vpp == 1:
        return []
    counted = range(run.shape.layers, run.shape.layers + 3 + max(1, run.shape.predicted))
    if not any(layers % slices == 0 for layers in counted):
        reasons.append(f"{run.shape.layers} layers in {layout.vpp} slices for each of {layout.pp} stages")
    batches = run.global_batch // (run.micro_batch * layout.dp)
    if batches % layout.pp:
        reasons.append(f"{batches} micro-batches, interleaved on {layout.pp} stages")
    return reasons


def plan_of(run: Run) -> Plan:
    """The plan of a run, read from its text; the models are found beside this file."""
    folder = str(Path(__file__).parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', run.id)[-100:]}.plan")
        path.write_text(plan_text(run), encoding="utf-8")
        return read_plan(str(path))


def plan_text(run: Run) -> str:
    """The text of a plan that trains the run's model, on its mesh, in its batches; raises NotExpressible."""
    reasons = why_not(run)
    if reasons:
        raise NotExpressible(f"{run.id}: {reasons}")
    run = _with_a_head_of_keys_each(run)
    accumulate = run.global_batch // (run.micro_batch * run.layout.dp)
    blocks = [
        f"# {run.model}: {run.source}\n{model_text(run)}",
        _mesh(run),
        _shard(run),
        f"schedule 1f1b {{ batch = {run.global_batch}   accumulate = {accumulate} }}",
        "train { clip = 1   precision = bf16 }",
        _hardware(run),
    ]
    return "\n\n".join(blocks) + "\n"


def _with_a_head_of_keys_each(run: Run) -> Run:
    """Ranks that are more than the heads of keys have copies of them, one each."""
    return replace(run, shape=replace(run.shape, kv_heads=max(run.shape.kv_heads, run.layout.tp)))


def practice(run: Run) -> Practice:
    """What the framework did otherwise than moec's program says."""
    layout = run.layout
    return Practice(
        recompute=run.recompute,
        recomputed_layers=run.recomputed_layers,
        interleave=layout.vpp,
        sharded_state=(layout.shards or layout.dp * layout.cp) if layout.zero else 1,
        sharded_weights=layout.zero > 2,
        fused=not is_eager(run.framework, run.notes, run.precision),
        overlapped_gradients=run.overlap,
        overlapped_experts=run.overlapped_experts,
        float8=run.precision == "fp8",
        gradient_bytes=run.gradient_bytes,
    )


def _mesh(run: Run) -> str:
    """Ranks of tp are neighbours and stages are furthest apart; ep takes the ranks that have different tokens."""
    layout = run.layout
    axes = {"pp": layout.pp, "dp": layout.dp, "cp": layout.cp, "tp": layout.tp}
    kept = {name: size for name, size in axes.items() if size > 1} or {"dp": 1}
    said = [f"{name} = {size}" for name, size in kept.items()]
    if layout.ep > 1:
        over = [name for name in kept if name != "pp" and (name != "tp" or layout.etp == 1)]
        said.append(f"ep = {layout.ep} over {', '.join(over)}")
    return f"mesh {{ {'   '.join(said)} }}"


def _shard(run: Run) -> str:
    layout = run.layout
    dims = "heads, ffn, vocab" if run.shape.ffn_is_used else "heads, vocab"
    sequence = [name for name, used in (("cp", layout.cp > 1), ("tp", layout.sequence_parallel)) if used]
    lines = [
        "layers over pp" if layout.pp > 1 else "",
        "batch over dp" if layout.dp > 1 else "",
        f"seq over {', '.join(sequence)}" if sequence else "",
        f"{dims} over tp" if layout.tp > 1 else "",
        "experts over ep" if layout.ep > 1 else "",
        ("expert_ffn over tp" if layout.etp > 1 else "expert_ffn whole") if run.shape.experts else "",
    ]
    return "\n".join(["shard {", *(f"  {line}" for line in lines if line), "}"])


def _hardware(run: Run) -> str:
    fields = {
        "memory": f"{run.gpu_memory / 1e9:g} GB" if run.gpu_memory else "",
        "memory_bandwidth": f"{run.gpu_bandwidth / 1e9:g} GB/s" if run.gpu_bandwidth else "",
        "network_bandwidth": f"{run.network / 1e9:g} GB/s" if run.network else "",
        "ranks_per_node": f"{run.per_node}" if run.per_node else "",
    }
    said = "   ".join(f"{name} = {value}" for name, value in fields.items() if value)
    return f"hardware {run.gpu} {{ {said}{' ' if said else ''}}}"

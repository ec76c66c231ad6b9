"""Rows of a survey of published runs, as settings of a run: what the sources leave to the reader is decided here.

A row is a flat record: model (layers, hidden, heads, kv_heads, head_dim, ffn, gated_ffn, vocab, seq, experts, top_k,
expert_ffn, shared_expert_ffn, moe_layers, capacity_factor, attention), gpu, gpus, tp, pp, vpp, cp, dp, ep, etp, zero,
micro_batch, global_batch, precision, recompute, framework, notes, and what was measured (step_seconds.py).
"""

import re
from collections.abc import Mapping

from frameworks import BEFORE_FUSED_ATTENTION, BEFORE_SEQUENCE_PARALLELISM, HALF_GRADIENTS, any_of
from gpus import gpu_of, per_node
from known_models import known_dims
from left_out import LeftOut
from step_seconds import number, step_seconds, whole
from survey_shape import shape_of
from words import Sharded, precision_of, recompute_of, sharded_of

Row = Mapping[str, object]
Settings = dict[str, object]

_NEEDED = ("layers", "hidden", "heads", "seq")
_KINDS = ("train_step", "layer")


def from_survey(given: Row) -> Settings:
    """Flat settings of a run, with what is assumed of it; raises LeftOut for a row that lacks what a run needs."""
    row = {**known_dims(given), **{name: value for name, value in given.items() if value is not None}}
    row.setdefault("framework", "Megatron-LM 2022" if row.get("kind") == "layer" else "")
    if row.get("kind", "train_step") not in _KINDS:
        raise LeftOut(f"what was measured is a {row['kind']}")
    missing = [name for name in _NEEDED if not whole(row, name)]
    if missing:
        raise LeftOut(f"its {', '.join(missing)} not stated")
    assumed: list[str] = (
        [] if row["framework"] else ["no framework is stated: the practices of Megatron-Core are assumed"]
    )
    settings = shape_of(row, assumed)
    settings |= _layout(row, assumed)
    settings |= _own(row, settings, assumed)
    if number(settings, "tp") > number(settings, "kv_heads"):
        assumed.append("ranks of tp are more than heads of keys: each is assumed to have a copy of one")
    measured = step_seconds(row, settings)
    if not measured:
        raise LeftOut("no time and no rate was measured that can be read")
    return settings | measured | {"assumed": [text for text in dict.fromkeys(assumed) if text]}


def _layout(row: Row, assumed: list[str]) -> Settings:
    sharded = sharded_of(str(row.get("zero", "")), str(row["framework"]))
    row = {**row, **_axes(row, sharded, assumed)}
    tp, pp, cp, ep = (whole(row, name) or 1 for name in ("tp", "pp", "cp", "ep"))
    whole_experts = ep > 1 or "experts" not in row
    assumed.append(sharded.assumed)
    return {
        "tp": tp,
        "pp": pp,
        "vpp": whole(row, "vpp") or 1,
        "cp": cp,
        "dp": whole(row, "dp"),
        "gpus": whole(row, "gpus"),
        "ep": ep,
        "etp": whole(row, "etp") or (1 if whole_experts else tp),
        "zero": sharded.zero,
        "shards": sharded.shards,
        "sequence_parallel": tp > 1 and _sequence_parallel(row),
    }


def _axes(row: Row, sharded: Sharded, assumed: list[str]) -> Settings:
    """tp, pp, dp and gpus, of which one follows from the others. Where weights are shared out, or no Megatron is at
    work, what is not stated of tp and pp is taken not to be used."""
    sizes = {name: whole(row, name) for name in ("tp", "pp", "dp", "gpus")}
    unsaid = [name for name in ("tp", "pp") if not sizes[name]]
    cp = whole(row, "cp") or 1
    if len(unsaid) == 1 and sizes["dp"] and sizes["gpus"]:
        others = sizes["tp"] + sizes["pp"]
        sizes[unsaid[0]] = max(1, sizes["gpus"] // (sizes["dp"] * cp * others))
        assumed.append(f"{unsaid[0]} is not stated: {sizes[unsaid[0]]} follows from the number of GPUs")
    elif unsaid and (sharded.zero == 3 or not any_of(("Megatron", "NeMo", "Bridge"), str(row["framework"]))):
        sizes |= dict.fromkeys(unsaid, 1)
        assumed.append(f"{' and '.join(unsaid)} not stated: 1 is assumed")
    elif unsaid:
        raise LeftOut(f"its {' and '.join(unsaid)} not stated")
    together = sizes["tp"] * sizes["pp"] * cp
    if not sizes["gpus"] and not sizes["dp"]:
        raise LeftOut("its gpus not stated")
    sizes["gpus"] = sizes["gpus"] or together * sizes["dp"]
    if sizes["gpus"] % together:
        raise LeftOut(f"{sizes['gpus']} GPUs are no multiple of tp, pp and cp, {together}")
    if sizes["dp"] and sizes["dp"] * together != sizes["gpus"]:
        found = f"{sizes['dp']} is stated, {sizes['gpus'] // together} follows from the number of GPUs, and is assumed"
        assumed.append(f"dp of {found}")
    return {**sizes, "dp": sizes["gpus"] // together}


def _sequence_parallel(row: Row) -> bool:
    """Megatron-LM of 2022 had it as an option; since then it is used, and by experts it is needed."""
    framework = str(row["framework"])
    if "Megatron-LM 2022" in framework:
        return "SP" in str(row.get("recompute"))
    refused = "no sequence parallel" in str(row.get("notes")) and "experts" not in row
    return not refused and not any_of(BEFORE_SEQUENCE_PARALLELISM, framework)


def _own(row: Row, settings: Settings, assumed: list[str]) -> Settings:
    micro_batch = whole(row, "micro_batch") or 1
    framework, other = str(row["framework"]), row.get("other_measured")
    if not row.get("gpu"):
        raise LeftOut("its gpu not stated")
    gpu = gpu_of(str(row["gpu"]))
    precision, unsaid = precision_of(str(row.get("precision", "")))
    recomputed = recompute_of(str(row.get("recompute", "")), framework)
    stage = whole(settings, "layers") // whole(settings, "pp")
    assumed += [gpu.assumed, unsaid, recomputed.assumed]
    if not whole(row, "global_batch"):
        assumed.append("the batch is not stated: a micro-batch for each replica is assumed")
    own: Settings = {
        "id": str(row.get("id", row.get("model", "a row without a name"))),
        "source": f"{row.get('source', '')}: {row.get('source_ref', '')}",
        "model": str(row.get("model", "")),
        "micro_batch": micro_batch,
        "global_batch": whole(row, "global_batch") or int(micro_batch * number(settings, "dp")),
        "gpu": gpu.entry,
        "per_node": per_node(gpu.entry, whole(settings, "gpus"), whole(row, "nodes")),
        "precision": precision,
        "framework": framework,
        "notes": str(row.get("notes", "")),
        "recompute": recomputed.kind,
        "recomputed_layers": recomputed.of_stage(stage),
        "overlap": _overlaps(row),
        "overlapped_experts": "a2a overlap ON" in str(other),
        "captured": _captured(row),
        "gradient_bytes": 2 if any_of(HALF_GRADIENTS, framework) else 4,
        "memory": number(row, "peak_mem_gib") * 2**30,
        "params_b": number(row, "params_b"),
        "gpu_memory": gpu.memory,
        "gpu_bandwidth": gpu.bandwidth,
        "doubt": _doubt(row),
    }
    network = re.search(r"\b(\d+) ?Gb/s.*per node", str(row.get("interconnect", "")))
    return own | ({"network": float(network[1]) * 1e9 / 8 / 8} if network else {})


def _captured(row: Row) -> bool | None:
    """Whether kernels are started from graphs; None: nothing says."""
    other = row.get("other_measured")
    how = str(other.get("cuda_graph_impl", "")) if isinstance(other, Mapping) else ""
    return how.strip("\"' ").lower() not in ("none", "no", "false") if how else None


def _overlaps(row: Row) -> bool:
    """Frameworks since 2023 sum gradients beside the backward unless they say otherwise; torch's DDP always has."""
    other, said = row.get("other_measured"), f"{row['framework']} {row.get('notes', '')}"
    torch = isinstance(other, Mapping) and other.get("ddp_impl") == "torch"
    return torch or not any_of((*BEFORE_FUSED_ATTENTION, "no TP/DP/PP overlap"), said)


def _doubt(row: Row) -> str:
    notes = re.search(r"[^.;:]*(?:do not calibrate|regression row)[^.;:]*", str(row.get("notes", "")))
    unsaid = "" if whole(row, "micro_batch") else "the micro-batch is not stated"
    return notes[0].strip(" []") if notes else unsaid

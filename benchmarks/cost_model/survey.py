"""Rows of a survey of published runs, as settings of a run: what the sources leave to the reader is decided here.

A row is a flat record: model (layers, hidden, heads, kv_heads, head_dim, ffn, gated_ffn, vocab, seq, experts, top_k,
expert_ffn, shared_expert_ffn, moe_layers, capacity_factor, attention), gpu, gpus, tp, pp, vpp, cp, dp, ep, etp, zero,
micro_batch, global_batch, precision, recompute, framework, notes, and what was measured (step_seconds.py).
"""

import re
from collections.abc import Mapping

from frameworks import BEFORE_FUSED_ATTENTION, BEFORE_SEQUENCE_PARALLELISM, HALF_GRADIENTS, OVERLAP_PRODUCTS, any_of
from known_models import KNOWN
from step_seconds import number, step_seconds, whole
from survey_shape import shape_of

Row = Mapping[str, object]
Settings = dict[str, object]

_GPUS = {
    "GB300": "gb300",
    "GB200": "gb200",
    "B300": "b300",
    "B200": "b200",
    "H200": "h200",
    "H100": "h100",
    "A100-40": "a100_40gb",
    "A100": "a100",
    "V100": "v100",
    "MI300X": "mi300x",
    "L40S": "l40s",
}
"""Entries of the hardware table by how the name of a GPU begins."""

_NEEDED = ("layers", "hidden", "heads", "ffn", "seq", "tp", "pp", "gpus")


def from_survey(given: Row) -> Settings | None:
    """Flat settings of a run, or None where the row lacks what a run needs."""
    row = {**_known(given), **{name: value for name, value in given.items() if value is not None}}
    row.setdefault("framework", "Megatron-LM 2022" if row.get("kind") == "layer" else "")
    if any(name not in row for name in _NEEDED):
        return None
    settings = shape_of(row)
    settings |= _layout(row)
    settings |= _own(row, settings)
    measured = step_seconds(row, settings)
    return settings | measured if measured else None


def _known(row: Row) -> Row:
    name = str(row["model"]).lower().replace(" ", "-")
    return next((dims for known, dims in KNOWN.items() if name.startswith(known)), {})


def _layout(row: Row) -> Settings:
    tp, pp, cp, ep = (whole(row, name) or 1 for name in ("tp", "pp", "cp", "ep"))
    zero = str(row.get("zero", int(not any_of(BEFORE_FUSED_ATTENTION, str(row["framework"])))))
    shards = re.search(r"shard=(\d+)", zero)
    whole_experts = ep > 1 or "experts" not in row
    return {
        "tp": tp,
        "pp": pp,
        "vpp": whole(row, "vpp") or 1,
        "cp": cp,
        "dp": whole(row, "dp") or max(1, whole(row, "gpus") // (tp * pp * cp)),
        "ep": ep,
        "etp": whole(row, "etp") or (1 if whole_experts else tp),
        "zero": 3 if shards else int(zero),
        "shards": int(shards[1]) if shards else 0,
        "sequence_parallel": tp > 1 and _sequence_parallel(row),
    }


def _sequence_parallel(row: Row) -> bool:
    """Megatron-LM of 2022 had it as an option; since then it is used, and by experts it is needed."""
    framework = str(row["framework"])
    if "Megatron-LM 2022" in framework:
        return "SP" in str(row.get("recompute"))
    refused = "no sequence parallel" in str(row.get("notes")) and "experts" not in row
    return not refused and not any_of(BEFORE_SEQUENCE_PARALLELISM, framework)


def _own(row: Row, settings: Settings) -> Settings:
    micro_batch = whole(row, "micro_batch") or 1
    framework, gpu = str(row["framework"]), str(row["gpu"])
    own: Settings = {
        "id": row["id"],
        "source": f"{row['source']}: {row.get('source_ref', '')}",
        "model": row["model"],
        "micro_batch": micro_batch,
        "global_batch": whole(row, "global_batch") or int(micro_batch * number(settings, "dp")),
        "gpu": next(entry for begin, entry in _GPUS.items() if gpu.startswith(begin)),
        "gpus": whole(row, "gpus"),
        "precision": _precision(str(row["precision"]).lower()),
        "framework": framework,
        "recompute": _recompute(str(row.get("recompute", ""))),
        "overlap": _overlaps(row),
        "overlapped_experts": "a2a overlap ON" in str(row.get("other_measured")),
        "overlapped_products": whole(row, "tp") > 1 and any_of(OVERLAP_PRODUCTS, framework),
        "captured": "transformer_engine" in str(row.get("other_measured")),
        "gradient_bytes": 2 if any_of(HALF_GRADIENTS, framework) else 4,
        "memory": number(row, "peak_mem_gib") * 2**30,
        "params_b": number(row, "params_b"),
        "doubt": _doubt(row),
    }
    network = re.search(r"\b(\d+) ?Gb/s.*per node", str(row.get("interconnect", "")))
    own |= {"network": float(network[1]) * 1e9 / 8 / 8} if network else {}
    return own | ({"gpu_memory": 96e9, "gpu_bandwidth": 2.4e12} if "96GB" in gpu else {})


def _precision(said: str) -> str:
    return "fp4" if "fp4" in said else "fp8" if "fp8" in said else "half"


def _recompute(said: str) -> str:
    """Lists of modules are of few bytes, and count as none."""
    if "full" in said:
        return "full"
    return "attention" if said.startswith("selective") and "[" not in said and "config" not in said else "none"


def _overlaps(row: Row) -> bool:
    """Frameworks since 2023 sum gradients beside the backward unless they say otherwise; torch's DDP always has."""
    other, said = row.get("other_measured"), f"{row['framework']} {row.get('notes', '')}"
    torch = isinstance(other, Mapping) and other.get("ddp_impl") == "torch"
    return torch or not any_of((*BEFORE_FUSED_ATTENTION, "no TP/DP/PP overlap"), said)


def _doubt(row: Row) -> str:
    notes = re.search(r"[^.;:]*(?:do not calibrate|regression row)[^.;:]*", str(row.get("notes", "")))
    assumed = "" if "micro_batch" in row else "the micro-batch is not stated: 1 is assumed"
    return notes[0].strip(" []") if notes else assumed

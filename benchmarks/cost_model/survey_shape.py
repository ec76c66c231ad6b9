"""What a row of a survey says of the model that was trained."""

import re
from collections.abc import Mapping

from frameworks import BEFORE_FUSED_ATTENTION, any_of
from step_seconds import whole

Row = Mapping[str, object]

_MEGATRON_VOCAB = 51_200
"""GPT-2's vocabulary as Megatron-LM pads it, where a row says nothing."""

_DEEPSEEK = {r"q(?:_lora)?(\d+)": 1536, r"kv(?:_lora)?(\d+)": 512, r"(?:rope|qk\d+\+)(\d+)": 64, r"[ ,]v(\d+)": 128}
"""Ranks and dims of latent attention as rows write them, and DeepSeek's own for those that do not."""


def shape_of(row: Row) -> dict[str, object]:
    """Settings of a published.Shape."""
    experts, framework = whole(row, "experts"), str(row["framework"])
    attention, gated = str(row.get("attention", "")), bool(row.get("gated_ffn", "experts" in row))
    old = any_of(BEFORE_FUSED_ATTENTION, framework)
    heads, latent = whole(row, "heads"), _latent(attention)
    beside = bool(latent or row.get("shared_expert_ffn"))
    shape: dict[str, object] = {
        "kind": "sparse" if beside else "decoder" if gated or experts else "gpt",
        "layers": whole(row, "layers"),
        "hidden": whole(row, "hidden"),
        "heads": heads,
        "kv_heads": heads if latent else whole(row, "kv_heads") or heads,
        "head_dim": whole(row, "head_dim") or whole(row, "hidden") // heads,
        "ffn": whole(row, "ffn"),
        "vocab": whole(row, "vocab") or _MEGATRON_VOCAB,
        "seq": whole(row, "seq"),
        "gated": gated,
        "tied": not (gated or experts or framework.startswith("Megatron-Core")),
        "fused_attention": not old and "unfused" not in attention,
        "bias": not str(row["model"]).startswith("mpt"),
        "dropout": old,
        "window": _found(r"sliding window (\d+)", attention),
        "latent": latent,
    }
    return shape | (_experts(row, experts, attention) if experts else {})


def _experts(row: Row, experts: int, attention: str) -> dict[str, object]:
    capacity, layers = row.get("capacity_factor"), whole(row, "layers")
    said = f"{row['model']}{attention}{row.get('tflops_convention', '')}"
    return {
        "experts": experts,
        "top_k": whole(row, "top_k"),
        "expert_ffn": whole(row, "expert_ffn"),
        "shared_ffn": whole(row, "shared_expert_ffn"),
        "dense_layers": layers - (whole(row, "moe_layers") or layers),
        "capacity": float(capacity) if isinstance(capacity, int | float) else 1.0 if "drop;" in str(capacity) else 0.0,
        "predicted": int("MTP" in said),
    }


def _latent(attention: str) -> list[int]:
    if not attention.startswith("MLA"):
        return []
    return [_found(pattern, attention) or usual for pattern, usual in _DEEPSEEK.items()]


def _found(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    return int(match[1]) if match else 0

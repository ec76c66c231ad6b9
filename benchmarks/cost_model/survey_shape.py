"""What a row of a survey says of the model that was trained."""

import re
from collections.abc import Mapping

from frameworks import BEFORE_FUSED_ATTENTION, any_of
from known_models import GATED, VOCABULARIES, plain
from left_out import LeftOut
from step_seconds import whole

Row = Mapping[str, object]

_MEGATRON_VOCAB = 51_200
"""GPT-2's vocabulary as Megatron-LM pads it, where a row says nothing."""

_DEEPSEEK = {r"q(?:_lora)?(\d+)": 1536, r"kv(?:_lora)?(\d+)": 512, r"(?:rope|qk\d+\+)(\d+)": 64, r"[ ,]v(\d+)": 128}
"""Ranks and dims of latent attention as rows write them, and DeepSeek's own for those that do not."""


def shape_of(row: Row, assumed: list[str]) -> dict[str, object]:
    """Settings of a published.Shape; what no source says is added to `assumed`."""
    experts, framework = whole(row, "experts"), str(row["framework"])
    attention, gated = str(row.get("attention", "")), _gated(row, assumed)
    old = any_of(BEFORE_FUSED_ATTENTION, framework)
    heads, latent = whole(row, "heads"), _latent(attention)
    beside = bool(latent or row.get("shared_expert_ffn"))
    shape: dict[str, object] = {
        "kind": "sparse" if beside else "decoder" if gated or experts else "gpt",
        "layers": whole(row, "layers"),
        "hidden": whole(row, "hidden"),
        "heads": heads,
        "kv_heads": heads if latent else _kv_heads(row, heads, attention, assumed),
        "head_dim": whole(row, "head_dim") or whole(row, "hidden") // heads,
        "ffn": _ffn(row, experts),
        "vocab": whole(row, "vocab") or _vocab(row, assumed),
        "seq": whole(row, "seq"),
        "gated": gated,
        "tied": not (gated or experts or framework.startswith("Megatron-Core")),
        "fused_attention": "flash" in attention.lower() or (not old and "unfused" not in attention),
        "bias": not str(row.get("model", "")).startswith("mpt"),
        "dropout": old,
        "window": _found(r"sliding window (\d+)", attention),
        "latent": latent,
    }
    return shape | (_experts(row, experts, attention) if experts else {})


def _gated(row: Row, assumed: list[str]) -> bool:
    if "gated_ffn" in row:
        return bool(row["gated_ffn"])
    found = "experts" in row or plain(row).startswith(GATED)
    assumed.append(f"whether its feed-forwards have a gate is not stated: {'one' if found else 'none'} is assumed")
    return found


def _kv_heads(row: Row, heads: int, attention: str, assumed: list[str]) -> int:
    stated = whole(row, "kv_heads") or _found(r"(\d+) kv heads", attention)
    if not stated and "GQA" in attention:
        assumed.append("how many heads share a key is not stated: none is assumed to")
    return stated or heads


def _ffn(row: Row, experts: int) -> int:
    """What a model has no layer for may be missing."""
    if not whole(row, "ffn") and (not experts or whole(row, "moe_layers") not in (0, whole(row, "layers"))):
        raise LeftOut("its ffn not stated")
    return whole(row, "ffn")


def _vocab(row: Row, assumed: list[str]) -> int:
    size = next((size for name, size in VOCABULARIES.items() if plain(row).startswith(name)), _MEGATRON_VOCAB)
    assumed.append(f"the vocabulary is not stated: {size:,} is assumed")
    return size


def _experts(row: Row, experts: int, attention: str) -> dict[str, object]:
    capacity, layers = row.get("capacity_factor"), whole(row, "layers")
    said = f"{row.get('model', '')}{attention}{row.get('tflops_convention', '')}"
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

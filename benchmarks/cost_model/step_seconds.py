"""The seconds of a step from what a source prints, by the formula that the source itself uses.

FLOPs are of the model: forward, and twice that backward. Their conventions differ in three things: whether attention
counts all positions or those that came before, whether what is computed again counts, and whether layers that predict
further ahead do.
"""

import re
from collections.abc import Mapping

from moec.compiler.cost.machine import read_table, resolve

Row = Mapping[str, object]
Settings = Mapping[str, object]


def step_seconds(row: Row, settings: Settings) -> dict[str, object]:
    """`seconds`, from what they are derived, and `forward_seconds` and `of` of a layer; nothing if nothing says."""
    other, derived = _record(row, "other_measured"), _record(row, "derived")
    if row.get("kind") == "layer":
        forward, both = number(other, "forward_ms"), number(other, "combined_ms")
        return {"of": "layer", "seconds": both / 1e3, "forward_seconds": forward / 1e3} if both else {}
    if number(row, "iter_time_s"):
        return {"seconds": number(row, "iter_time_s")}
    if number(derived, "iter_time_s"):
        formula = str(derived.get("iter_time_formula", ""))
        how = formula or ("tokens/s" if "tokens_per_s_per_gpu" in row else str(row.get("tflops_convention", "TFLOP/s")))
        return {"seconds": number(derived, "iter_time_s"), "derived": how}
    tokens = number(settings, "global_batch") * number(settings, "seq")
    gpus = number(settings, "gpus")
    each = number(row, "tokens_per_s_per_gpu") or number(derived, "tokens_per_s_per_gpu")
    together = number(row, "tokens_per_s") or number(other, "tokens_per_s") or each * gpus
    if together:
        return {"seconds": tokens / together, "derived": "tokens/s"}
    rate = number(row, "tflops_per_gpu") * 1e12 or number(row, "mfu_pct") / 100 * _peak(str(settings["gpu"]))
    if not rate:
        return {}
    convention = str(row.get("tflops_convention", "causal half attention, model FLOPs"))
    return {"seconds": tokens * _flops(row, settings, convention) / gpus / rate, "derived": convention}


def flops_per_token(settings: Settings, causal: bool) -> float:
    """FLOPs of forward and backward, without what is computed again."""
    layers, dense = number(settings, "layers"), number(settings, "dense_layers")
    sparse = layers - dense if settings.get("experts") else 0.0
    forward = layers * _attention(settings, causal) + 2 * number(settings, "hidden") * number(settings, "vocab")
    matrices = 3 if settings.get("gated") else 2
    widths = (layers - sparse) * number(settings, "ffn")
    widths += sparse * (number(settings, "top_k") * number(settings, "expert_ffn") + number(settings, "shared_ffn"))
    return 3 * (forward + 2 * matrices * number(settings, "hidden") * widths)


def _attention(settings: Settings, causal: bool) -> float:
    """Of one layer's forward: its matrices, and every position with those it looks at."""
    hidden, heads, head_dim, latent = (settings[name] for name in ("hidden", "heads", "head_dim", "latent"))
    assert isinstance(hidden, int) and isinstance(heads, int) and isinstance(head_dim, int) and isinstance(latent, list)
    seen = number(settings, "seq") / (2 if causal else 1)
    if latent:
        queries, shared, rotary, values = latent
        weights = hidden * (queries + shared + rotary) + queries * heads * (head_dim + rotary)
        weights += shared * heads * (head_dim + values) + heads * values * hidden
        return 2 * weights + 2 * seen * heads * (head_dim + rotary + values)
    weights = 2 * hidden * head_dim * (heads + number(settings, "kv_heads"))
    return 2 * weights + 4 * seen * heads * head_dim


def _flops(row: Row, settings: Settings, convention: str) -> float:
    over_causal = number(row, "tflops_over_causal_model_flops")
    if over_causal:
        return over_causal * flops_per_token(settings, causal=True)
    counted = flops_per_token(settings, causal="full" not in convention)
    if "INCLUDES recomputed" in convention:
        head = 6 * number(settings, "hidden") * number(settings, "vocab")
        return (counted - head) * 4 / 3 + head  # the layers' forward once more
    return counted


def _peak(gpu: str) -> float:
    rates = resolve(gpu, read_table())["compute"]
    assert isinstance(rates, dict)
    return float(rates["half"])


def number(record: Mapping[str, object], name: str) -> float:
    """A number of a record, 0 if it has none of this name."""
    value = record.get(name, 0)
    if isinstance(value, str) and re.fullmatch(r"\s*\d[\d,]*(\.\d+)?\s*", value):
        return float(value.replace(",", ""))
    return float(value) if isinstance(value, int | float) else 0.0


def whole(record: Mapping[str, object], name: str) -> int:
    return int(number(record, name))


def _record(row: Row, name: str) -> Mapping[str, object]:
    value = row.get(name, {})
    return value if isinstance(value, Mapping) else {}

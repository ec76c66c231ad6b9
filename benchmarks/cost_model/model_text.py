"""The block `model` of a plan for a published run: described in the plan where that fits, imported where not."""

from collections.abc import Sequence
from dataclasses import asdict

from published import Layout, Run, Shape

Settings = dict[str, int | float | bool]


def model_text(run: Run) -> str:
    """The block, with the dims of the weights and the small sizes that an imported model needs."""
    match run.shape.kind:
        case "decoder":
            return _decoder(run.shape)
        case "gpt":
            return _gpt(run.shape, run.layout)
        case "sparse":
            return _sparse(run.shape, run.layout)
        case kind:
            raise AssertionError(f"{run.id}: no model is called {kind}")


def _decoder(shape: Shape) -> str:
    sizes: Settings = {"layers": shape.layers, "hidden": shape.hidden, "heads": shape.heads, "kv_heads": shape.kv_heads}
    sizes["head_dim"] = shape.head_dim
    if shape.dense_layers < shape.layers or not shape.experts:
        sizes["ffn"] = shape.ffn
    sizes |= {"gated": shape.gated, "tied": shape.tied, "vocab": shape.vocab, "seq": shape.seq}
    lines = [f"  {_settings(sizes)}"]
    if shape.experts:
        experts = _settings({"count": shape.experts, "hidden": shape.expert_ffn, "top_k": shape.top_k})
        softmax = "after" if shape.top_k > 1 else "before"
        more = f"capacity = {shape.capacity or 'none'}   gated = {_word(shape.gated)}   softmax = {softmax}"
        lines.append(f"  experts {{ {experts}   {more} }}")
    return "\n".join(["model decoder {", *lines, "}"])


_GPT_WEIGHTS = """\
    "embed.weight"      [vocab, hidden]
    "*.qkv.weight"      [heads, hidden]
    "*.out.weight"      [hidden, heads]
    "*.up.weight"       [ffn, hidden]
    "*.down.weight"     [hidden, ffn]
"""
_GPT_BIASES = """\
    "*.qkv.bias"        [heads]
    "*.up.bias"         [ffn]
"""
_UNTIED_HEAD = """\
    "head.weight"       [vocab, hidden]
"""


def _gpt(shape: Shape, layout: Layout) -> str:
    tp, shared = layout.tp, shape.heads // shape.kv_heads
    groups = 2 * tp * layout.cp
    sizes: Settings = _sizes(shape, ("hidden", "heads", "head_dim", "ffn", "seq"))
    sizes["vocab"] = _padded(shape.vocab, tp)
    small: Settings = {"hidden": 26, "heads": groups * shared, "head_dim": 6, "ffn": 7 * tp, "vocab": 11 * tp}
    small["seq"] = 5 * tp * layout.cp
    if shared > 1:
        sizes["groups"], small["groups"] = shape.kv_heads, groups
    flags: Settings = {
        "layers": shape.layers,
        "tied": shape.tied,
        "bias": shape.bias,
        "dropout": shape.dropout,
        "fused_attention": shape.fused_attention,
    }
    weights = _GPT_WEIGHTS + (_GPT_BIASES if shape.bias else "") + ("" if shape.tied else _UNTIED_HEAD)
    return _imported("models.gpt:GPT", sizes | flags, small, weights)


_SPARSE_WEIGHTS = """\
    "embed.weight"      [vocab, hidden]
    "head.weight"       [vocab, hidden]
    "*.out.weight"      [hidden, heads]
    "*.query.weight"    [heads, _]
    "*.key.weight"      [heads, _]
    "*.value.weight"    [heads, _]
    "*.ffn.gate"        [experts, expert_ffn, hidden]
    "*.ffn.up"          [experts, expert_ffn, hidden]
    "*.ffn.down"        [experts, hidden, expert_ffn]
"""
_LATENT_WEIGHTS = """\
    "*.rotary_query.weight" [heads, _]
"""
_FEED_FORWARD_WEIGHTS = """\
    "*.gate.weight"     [ffn, hidden]
    "*.up.weight"       [ffn, hidden]
    "*.down.weight"     [hidden, ffn]
"""


def _sparse(shape: Shape, layout: Layout) -> str:
    tp, ep, etp = layout.tp, layout.ep, layout.etp
    kv_heads, shared = 2 * tp * layout.cp, shape.heads // shape.kv_heads
    sizes: Settings = _sizes(shape, _SPARSE_SIZES)
    sizes["vocab"] = _padded(shape.vocab, tp)
    small: Settings = {"hidden": 74, "heads": kv_heads * shared, "head_dim": 6, "ffn": 7 * tp, "vocab": 11 * tp}
    small |= {"seq": 5 * tp * layout.cp, "experts": ep * max(2, -(-shape.top_k // ep)), "expert_ffn": 9 * etp}
    if shape.shared_ffn:
        sizes["shared_ffn"], small["shared_ffn"] = shape.shared_ffn, 17 * tp
    if shape.latent:
        sizes |= dict(zip(_LATENT_SIZES, shape.latent, strict=True))
        small |= {"query_rank": 58, "key_rank": 62, "rotary": 46, "value_dim": 38}
    else:
        sizes["kv_heads"], small["kv_heads"] = shape.kv_heads, kv_heads
    weights = _SPARSE_WEIGHTS + (_LATENT_WEIGHTS if shape.latent else "")
    weights += _FEED_FORWARD_WEIGHTS if shape.ffn_is_used else ""
    counts: Settings = {"layers": shape.layers, "dense_layers": shape.dense_layers, "top_k": shape.top_k}
    counts |= {"predicted": shape.predicted, "capacity": float(shape.capacity)}
    counts["fused_attention"] = shape.fused_attention
    return _imported("models.sparse:Sparse", counts | sizes, small, weights)


_SPARSE_SIZES = ("hidden", "heads", "head_dim", "ffn", "seq", "experts", "expert_ffn")
_LATENT_SIZES = ("query_rank", "key_rank", "rotary", "value_dim")


def _imported(target: str, sizes: Settings, small: Settings, weights: str) -> str:
    return (
        f'model imported = python "{target}" {{\n'
        f"  {_settings(sizes)}\n"
        f"  small {{ {_settings(small)} }}\n"
        "  inputs {\n"
        "    tokens = int[batch, seq] < vocab\n"
        "    labels = int[batch, seq] < vocab\n"
        "  }\n"
        f"  weights {{\n{weights}  }}\n"
        "}"
    )


def _sizes(shape: Shape, names: Sequence[str]) -> Settings:
    known = asdict(shape)
    return {name: known[name] for name in names}


def _padded(vocab: int, tp: int) -> int:
    """As Megatron-LM pads a vocabulary that does not divide: the plan of an imported model has to."""
    unit = 128 * tp
    return vocab if vocab % tp == 0 else -(-vocab // unit) * unit


def _settings(sizes: Settings) -> str:
    return "   ".join(f"{name} = {_word(value)}" for name, value in sizes.items())


def _word(value: int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

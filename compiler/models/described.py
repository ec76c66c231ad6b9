"""The described model at its sizings: the plan's own, small ones that `verify` runs, and odd ones.

Odd sizes are pairwise different and share no factor, so that a number in a trace is one product of them.
"""

from fractions import Fraction
from math import lcm

import torch
from torch import nn

from moec.compiler.model import Input, Model, Sizing
from moec.compiler.models import decoder
from moec.compiler.undrawn import undrawn
from moec.dsl.plan import Decoder, Plan
from moec.runtime.routing import capacity_of


def describe(plan: Plan, model: Decoder) -> Model:
    """The model of a plan that describes it, on the meta device."""
    full = _full_sizes(plan, model)
    small = _small_sizes(plan, model, full)
    odd = {name: _ODD[name] for name in full}
    sizings = (full, small, odd)
    shapes = tuple((sizes["batch"], sizes["seq"]) for sizes in sizings)
    below = tuple(sizes["vocab"] for sizes in sizings)
    inputs = tuple(Input(name, name, ("batch", "seq"), shapes, below) for name in ("tokens", "labels"))
    patterns = (*((p.pattern, p.dims) for p in plan.patterns), *decoder.DIMS)
    return Model(
        tuple(_decoder(model, sizes) for sizes in sizings),
        sizings,
        inputs,
        patterns,
        decoder.INITIAL,
        frozenset({"vocab"}),
    )


_ODD = {
    "batch": 5,
    "seq": 37,
    "hidden": 17,
    "heads": 21,
    "kv_heads": 3,
    "head_dim": 22,
    "vocab": 31,
    "ffn": 19,
    "experts": 41,
    "expert_ffn": 23,
}


def _full_sizes(plan: Plan, model: Decoder) -> dict[str, int]:
    """The plan's own, in the order in which they read well in a shape."""
    experts = model.experts
    sizes = {
        "batch": plan.schedule.batch // plan.schedule.accumulate,
        "experts": experts.count if experts else None,
        "heads": model.heads,
        "kv_heads": model.kv_heads if model.kv_heads != model.heads else None,
        "seq": model.seq,
        "head_dim": model.head_dim,
        "hidden": model.hidden,
        "ffn": model.ffn,
        "expert_ffn": experts.hidden if experts else None,
        "vocab": model.vocab,
    }
    return {name: size for name, size in sizes.items() if size is not None}


def _small_sizes(plan: Plan, model: Decoder, full: Sizing) -> dict[str, int]:
    """Sizes that keep the structure: what splits still splits, a local size above 1 stays above 1, all differ."""
    small: dict[str, int] = {}
    if "kv_heads" in full:
        least = _least(plan, full, "kv_heads")
        ratio = 2 if full["heads"] // full["kv_heads"] % 2 == 0 else 3
        small["kv_heads"] = least
        small["heads"] = least * ratio
        if small["heads"] % _parts(plan, full, "heads"):
            small["heads"], small["kv_heads"] = full["heads"], full["kv_heads"]
    small["head_dim"] = 6
    floors = {"seq": 7, "hidden": 10, "vocab": 11, "ffn": 5, "expert_ffn": 3}
    for name in ("batch", "heads", "experts", "expert_ffn", "ffn", "seq", "hidden", "vocab"):
        if name in full and name not in small:
            small[name] = _distinct(plan, full, name, small, floors.get(name, 1), model)
    return {name: small[name] for name in full}


def _parts(plan: Plan, full: Sizing, name: str) -> int:
    """Into how many a size must split: as the dim of that name does, and any other dim that has the size."""
    alike = {"heads": ("kv_heads",), "experts": ("choices",)}.get(name, ())
    parts = lcm(*(plan.mesh.size(plan.axes_of(dim)) for dim in (name, *alike) if dim == name or dim not in full))
    if name not in ("heads", "kv_heads"):
        return parts
    positions = [axis for axis in plan.axes_of("seq") if axis not in plan.axes_of(name)]  # attention splits heads there
    exchanged = parts * plan.mesh.size(positions)
    return parts if full[name] % exchanged else exchanged


def _least(plan: Plan, full: Sizing, name: str) -> int:
    parts = _parts(plan, full, name)
    return parts * (1 if full[name] <= parts else 2)


def _distinct(plan: Plan, full: Sizing, name: str, taken: Sizing, floor: int, model: Decoder) -> int:
    """The smallest size from `floor` on that splits as the full one does and that no other dim has."""
    parts = _parts(plan, full, name)
    rest = full[name] % parts
    least = max(_least(plan, full, name), floor)
    if name == "experts" and model.experts is not None:
        least = max(least, model.experts.top_k)
    products = {*taken.values(), taken["head_dim"] * taken.get("heads", 1)}
    size = least
    while (size % parts == 0) != (rest == 0) or size in products:
        if full[name] <= parts and rest == 0:
            return parts * (full[name] // parts)
        size += 1
    return size


def _decoder(model: Decoder, sizes: Sizing) -> nn.Module:
    kv_heads = sizes.get("kv_heads", sizes["heads"])
    with undrawn():
        layers = []
        for index in range(model.layers):
            attention = decoder.Attention(sizes["hidden"], sizes["heads"], kv_heads, sizes["head_dim"])
            if model.sparse(index):
                ffn = _experts(model, sizes)
            else:
                ffn = decoder.FeedForward(sizes["hidden"], sizes["ffn"], model.gated)
            layers.append(decoder.Layer(attention, ffn, sizes["hidden"], model.norm_eps))
        whole = decoder.Decoder(
            layers, sizes["hidden"], sizes["head_dim"], sizes["vocab"], model.tied, model.norm_eps, model.rope_base
        )
    return whole.to(torch.bfloat16)


def _experts(model: Decoder, sizes: Sizing) -> decoder.Experts:
    experts = model.experts
    assert experts is not None
    capacity = _capacity(model, sizes)
    return decoder.Experts(
        sizes["hidden"],
        sizes["experts"],
        sizes["expert_ffn"],
        experts.top_k,
        capacity,
        experts.route,
        experts.gated,
        experts.softmax_first,
    )


def _capacity(model: Decoder, sizes: Sizing) -> int | None:
    """Rows that an expert takes of one routing group."""
    experts = model.experts
    if experts is None or experts.capacity is None:
        return None
    tokens = sizes["seq"] * (sizes["batch"] if experts.route == "per_microbatch" else 1)
    factor = Fraction(experts.capacity)
    return capacity_of(tokens, experts.top_k, sizes["experts"], factor, experts.min_capacity)

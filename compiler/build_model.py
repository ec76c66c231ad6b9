"""Builds the plan's model on the meta device: at the plan's own sizes, at the small ones that are verified, and at odd ones.

Odd sizes are pairwise different and share no factor, so that a number in a trace is one product of them.
"""

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import Path

import torch
from torch import nn

from moec.compiler.models import decoder
from moec.dsl.diagnostics import Diagnostic, PlanError
from moec.dsl.plan import Argument, Decoder, Imported, Plan
from moec.runtime.routing import capacity_of

Sizing = Mapping[str, int]
"""A size for every symbol of the plan."""


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that the model takes: its size in every sizing, and the logical dims that it has."""

    name: str
    kind: str  # tokens, labels, float or int
    dims: tuple[str | None, ...]
    sizes: tuple[tuple[int, ...], ...]
    below: tuple[int | None, ...]

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.kind == "float" else torch.int64


@dataclass(frozen=True, slots=True)
class Model:
    """A module at several sizings (the plan's, a small one, odd ones), of one structure, and what its dims are called."""

    modules: tuple[nn.Module, ...]
    sizings: tuple[Sizing, ...]
    inputs: tuple[Input, ...]
    patterns: tuple[tuple[str, tuple[str | None, ...]], ...]
    initial: tuple[tuple[str, str], ...]

    def dims_of(self, weight: str, rank: int) -> tuple[str | None, ...]:
        """Logical dims of a weight, by the first pattern that matches its name."""
        found = next((dims for pattern, dims in self.patterns if fnmatchcase(weight, pattern)), ())
        return found if len(found) == rank else (None,) * rank

    def init_of(self, weight: str) -> str:
        return next(init for pattern, init in self.initial if fnmatchcase(weight, pattern))


def build_model(plan: Plan) -> Model:
    """The model of a plan, without a single real weight; raises PlanError where a user's module cannot be built."""
    if isinstance(plan.model, Decoder):
        return _described(plan, plan.model)
    return _imported(plan, plan.model)


# ---- Described in the plan.


def _described(plan: Plan, model: Decoder) -> Model:
    full = _full_sizes(plan, model)
    small = _small_sizes(plan, model, full)
    odd = {name: _ODD[name] for name in full}
    sizings = (full, small, odd)
    shapes = tuple((sizes["batch"], sizes["seq"]) for sizes in sizings)
    below = tuple(sizes["vocab"] for sizes in sizings)
    inputs = tuple(Input(name, name, ("batch", "seq"), shapes, below) for name in ("tokens", "labels"))
    patterns = (*((p.pattern, p.dims) for p in plan.patterns), *decoder.DIMS)
    return Model(tuple(_decoder(model, sizes) for sizes in sizings), sizings, inputs, patterns, decoder.INITIAL)


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
    sizes = {
        "batch": plan.schedule.batch // plan.schedule.accumulate,
        "seq": model.seq,
        "hidden": model.hidden,
        "heads": model.heads,
        "kv_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "vocab": model.vocab,
    }
    if model.ffn is not None:
        sizes["ffn"] = model.ffn
    if model.experts is not None:
        sizes |= {"experts": model.experts.count, "expert_ffn": model.experts.hidden}
    if model.kv_heads == model.heads:
        del sizes["kv_heads"]
    return sizes


def _small_sizes(plan: Plan, model: Decoder, full: Sizing) -> dict[str, int]:
    """Sizes that keep the structure: what splits still splits, a local size above 1 stays above 1, all differ."""
    small: dict[str, int] = {}
    if "kv_heads" in full:
        least = _least(plan, full, "kv_heads")
        ratio = 2 if full["heads"] // full["kv_heads"] % 2 == 0 else 3
        small["kv_heads"] = least
        small["heads"] = least * ratio
        if small["heads"] % plan.mesh.size(plan.axes_of("heads")):
            small["heads"], small["kv_heads"] = full["heads"], full["kv_heads"]
    small["head_dim"] = 6
    floors = {"seq": 7, "hidden": 10, "vocab": 11, "ffn": 5, "expert_ffn": 3}
    for name in ("batch", "heads", "experts", "expert_ffn", "ffn", "seq", "hidden", "vocab"):
        if name in full and name not in small:
            small[name] = _distinct(plan, full, name, small, floors.get(name, 1), model)
    return small


def _least(plan: Plan, full: Sizing, name: str) -> int:
    parts = plan.mesh.size(plan.axes_of(name))
    return parts * (1 if full[name] <= parts else 2)


def _distinct(plan: Plan, full: Sizing, name: str, taken: Sizing, floor: int, model: Decoder) -> int:
    """The smallest size from `floor` on that splits as the full one does and that no other dim has."""
    parts = plan.mesh.size(plan.axes_of(name))
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
    with torch.device("meta"):
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


def _experts(model: Decoder, sizes: Sizing) -> nn.Module:
    experts = model.experts
    assert experts is not None
    capacity = experts_capacity(model, sizes)
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


def experts_capacity(model: Decoder, sizes: Sizing) -> int | None:
    """Rows that an expert takes of one routing group."""
    experts = model.experts
    if experts is None or experts.capacity is None:
        return None
    tokens = sizes["seq"] * (sizes["batch"] if experts.route == "per_microbatch" else 1)
    factor = Fraction(experts.capacity)
    return capacity_of(tokens, experts.top_k, sizes["experts"], factor, experts.min_capacity)


# ---- Imported.


def _imported(plan: Plan, model: Imported) -> Model:
    for folder in (str(Path(plan.source.path).resolve().parent), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    arguments = dict(model.arguments)
    small_arguments = {**arguments, **dict(model.small)}
    kind = _load(model)
    modules = tuple(_construct(model, kind, given) for given in (arguments, small_arguments))
    batch = plan.schedule.batch // plan.schedule.accumulate
    small_batch = _least(plan, {"batch": batch}, "batch")
    while small_batch in small_arguments.values() and batch > plan.mesh.size(plan.axes_of("batch")):
        small_batch += plan.mesh.size(plan.axes_of("batch"))
    sizings = tuple(
        {"batch": n} | {name: size for name, size in given.items() if type(size) is int and size > 0}
        for n, given in ((batch, arguments), (small_batch, small_arguments))
    )
    inputs = []
    for whole, little in zip(model.inputs, model.small_inputs, strict=True):
        both = tuple(
            tuple(sizing[d] if isinstance(d, str) else d for d in given.dims)
            for given, sizing in zip((whole, little), sizings, strict=True)
        )
        below = tuple(
            sizing[given.below] if isinstance(given.below, str) else given.below
            for given, sizing in zip((whole, little), sizings, strict=True)
        )
        dims = tuple(d if isinstance(d, str) else None for d in whole.dims)
        inputs.append(Input(whole.name, whole.kind, dims, (both[0], both[1]), (below[0], below[1])))
    patterns = tuple((p.pattern, p.dims) for p in (*plan.patterns, *model.weights))
    initial = (("*", "module"),)
    return Model((modules[0], modules[1]), (sizings[0], sizings[1]), tuple(inputs), patterns, initial)


def _load(model: Imported) -> type[nn.Module]:
    module_name, _, name = model.target.partition(":")
    try:
        found = vars(importlib.import_module(module_name)).get(name)
    except (Exception, SystemExit) as fault:
        raise _fault(model, "E401", f"`{module_name}` cannot be imported: {_said(fault)}") from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        what = "no such name" if found is None else "not a torch.nn.Module class"
        raise _fault(model, "E401", f"`{model.target}` is {what}")
    return found


def _construct(model: Imported, kind: type[nn.Module], arguments: Mapping[str, Argument]) -> nn.Module:
    try:
        with torch.device("meta"):
            return kind(**arguments).to(torch.bfloat16)
    except (Exception, SystemExit) as fault:
        raise _fault(model, "E402", f"`{model.target}` cannot be constructed: {_said(fault)}") from None


def _fault(model: Imported, code: str, headline: str) -> PlanError:
    labels = (model.place.label("this model"),) if model.place else ()
    return PlanError((Diagnostic(code, headline, labels),))


def _said(fault: BaseException) -> str:
    lines = str(fault).strip().splitlines()
    return f"{type(fault).__name__}: {lines[0] if lines else ''}".rstrip(": ")

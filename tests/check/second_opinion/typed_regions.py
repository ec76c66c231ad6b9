"""Regions of the emitted text under spmd_types' checker: every operator of torch in them is checked by its rules.

A function of moec's runtime is one operator: linear in each of some arguments, or in none. spmd_types' local mode does
not know that a product contracts a dim that is split; it gives V, which is read as P where moec says so.
"""

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType, SimpleNamespace

import spmd_types as spmd
import torch.nn.functional as F
from spmd_types import PerMeshAxisLocalSpmdType as Type
from spmd_types._checker import OpLinearity, infer_output_type
from torch import Tensor
from typed_collectives import type_of, types_of

from moec.compiler.placement import Axes
from moec.compiler.program import Collective, Compute, Group, Unit, Value
from moec.runtime import heads, local_experts, routing, vocabulary

MULTILINEAR = (
    *("grouped_linear", "grouped_linear_ragged", "fill_slots", "read_slots", "sort_rows", "collect_rows"),
    *("dispatch", "collect", "embed_rows", "repeat_for", "own_rows", "place_rows"),
)
"""Functions of the runtime that are linear in every argument that carries a gradient."""

COUNTS = ("gather_counts", "exchange_counts")

Region = Callable[..., object]


def runtime_modules() -> Mapping[str, SimpleNamespace]:
    """The modules that regions call, each of whose functions is one operator to the checker."""
    return {
        module.__name__.rpartition(".")[2]: _as_operators(module)
        for module in (heads, local_experts, routing, vocabulary)
    }


def _as_operators(module: ModuleType) -> SimpleNamespace:
    functions = {name: each for name, each in vars(module).items() if callable(each) and name[0] != "_"}
    return SimpleNamespace(**{name: _operator(name, function) for name, function in functions.items()})


def _operator(name: str, function: Region) -> Region:
    linearity = OpLinearity.MULTILINEAR if name in MULTILINEAR else OpLinearity.NONLINEAR

    def operator(*args: object) -> object:
        tensors = [x for x in args if isinstance(x, Tensor)]
        with spmd.no_typecheck():
            result = function(*args)
        found = infer_output_type(
            [spmd.get_local_type(x) for x in tensors],
            no_grad=[not x.requires_grad for x in tensors],
            linearity=linearity,
        )
        for x in result if isinstance(result, tuple) else (result,):
            spmd.assert_type(x, found)
        return result

    return operator


def functional() -> SimpleNamespace:
    """torch.nn.functional, in which a bias that is a summand is added after the product is read as summands."""

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return _plus(F.linear(x, weight), bias) if _partial(bias) else F.linear(x, weight, bias)

    def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *args: object, **kwargs: object) -> Tensor:
        if not _partial(bias):
            return F.conv2d(x, weight, bias, *args, **kwargs)
        found = F.conv2d(x, weight, None, *args, **kwargs)
        assert bias is not None
        return _plus(found, bias.unsqueeze(-1).unsqueeze(-1))

    return SimpleNamespace(**{**vars(F), "linear": linear, "conv2d": conv2d})


def _partial(bias: Tensor | None) -> bool:
    return bias is not None and spmd.P in types_of(bias).values()


def _plus(product: Tensor, bias: Tensor | None) -> Tensor:
    assert bias is not None
    spmd.assert_type(product, {axis: each for axis, each in types_of(bias).items() if each is spmd.P})
    return product + bias


def read_as(x: Tensor, name: str, unit: Unit) -> Tensor:
    """An argument as its region reads it: what moec shares or keeps, which is silent, is a conversion here."""
    value = unit.values[name]
    kept = any(isinstance(i, Collective) and i.move.kind == "keep" and i.output == name for i in unit.forward)
    for axis, mine in types_of(x).items():
        wanted = type_of(value.placement, axis)
        shared = mine is spmd.I and wanted is spmd.R
        if x.requires_grad and (shared or (kept and mine is spmd.R and wanted is spmd.I)):
            x = spmd.convert(x, axis, src=mine, dst=wanted, expert_mode=True)
    return x


def typed(region: Region, compute: Compute, unit: Unit) -> Region:
    """A region whose results have to have the types that moec gives them."""
    counts = counting(unit)
    looked_at = frozenset(axis for op in compute.ops for axes in _groups((op.args, op.kwargs)) for axis in axes)

    def run(*args: object) -> object:
        result = region(*args)
        results = result if isinstance(result, tuple) else (result,)
        for name, x in zip(compute.outputs, results, strict=True):
            assert isinstance(x, Tensor)
            if name in counts:
                continue
            settle(x, unit.values[name], looked_at, f"`{compute.name}` makes {name}")
        return result

    run.__name__ = compute.name
    return run


def counting(unit: Unit) -> frozenset[str]:
    """Integers that say how many rows there are: they differ between ranks, and moec types them as what they count."""
    routings = [item.routing for item in unit.forward if isinstance(item, Collective) and item.routing is not None]
    found = {name for routing in routings for name in (routing.counts, routing.arrivals)}
    found |= {value.ragged for value in unit.values.values() if value.ragged}
    sources = {item.source for item in unit.forward if isinstance(item, Collective) and item.move.kind in COUNTS}
    found |= sources
    for item in unit.forward:
        if isinstance(item, Compute) and item.inputs and found.issuperset((*item.inputs, *item.weights)):
            found |= set(item.outputs)
    return frozenset(found)


def settle(x: Tensor, value: Value, looked_at: frozenset[str], what: str) -> None:
    """The types that spmd_types found and those of moec are the same, where the two mean the same by them."""
    for axis, mine in types_of(x).items():
        wanted = type_of(value.placement, axis)
        if mine is wanted:
            continue
        if not x.requires_grad and {mine, wanted} == {spmd.I, spmd.R}:
            spmd.reinterpret_no_grad(x, axis, dst=wanted)
        elif wanted is spmd.P and mine is spmd.V:
            spmd.assert_type(x, {axis: spmd.P})
        elif mine in (spmd.R, spmd.I) and axis in looked_at and wanted in (spmd.V, spmd.P):
            spmd.mutate_type(x, axis, src=mine, dst=wanted)  # a rank's coordinate is a plain number to spmd_types
        else:
            raise spmd.SpmdTypeError(f"{what} of type {mine} on {axis}, and moec says {wanted}")


def _groups(argument: object) -> Iterator[Axes]:
    if isinstance(argument, Group):
        yield argument.axes
    for item in argument if isinstance(argument, tuple) else ():
        yield from _groups(item)


def backward_types(x: Tensor) -> dict[str, Type]:
    """Of a value's gradient."""
    return {axis: each.backward_type() for axis, each in types_of(x).items()}

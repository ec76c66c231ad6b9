"""Collectives of the emitted text as spmd_types calls them, on one axis of the mesh after the other."""

from collections.abc import Callable, Mapping

import spmd_types as spmd
import torch
from said import Crossing
from spmd_types import PerMeshAxisLocalSpmdType as Type
from torch import Tensor

from moec.compiler.placement import Axes, Placement

TYPES: Mapping[str, Type] = {"I": spmd.I, "R": spmd.R, "S": spmd.V, "P": spmd.P}
ROWS = ("exchange_counts", "gather_counts", "send_rows", "return_rows", "gather_rows", "scatter_rows")
Dims = Mapping[str, int]


def type_of(placement: Placement, axis: str) -> Type:
    """A candidate for the maximum, which spmd_types has no name for, is to it a value that varies."""
    return spmd.V if axis in placement.highest else TYPES[placement.letter(axis)]


def types_of(x: Tensor) -> dict[str, Type]:
    """By the mesh's names of axes."""
    return {axis: spmd.get_axis_local_type(x, axis) for axis in spmd.current_mesh_names() or ()}


def retyped(x: Tensor, types: Mapping[str, Type]) -> Tensor:
    """The same values under these types: a tensor of its own."""
    with spmd.no_typecheck():
        found = x.detach().clone().requires_grad_(x.requires_grad)
    return spmd.assert_type(found, dict(types))


def talked(kind: str, x: Tensor, axes: Axes, dims: Dims, way: Crossing) -> dict[str, Type]:
    """The types of what a collective makes of x; raises SpmdTypeError or ValueError where spmd_types refuses it."""
    with spmd.no_typecheck():
        twin = torch.zeros(x.shape, dtype=x.dtype).requires_grad_(x.requires_grad)
    spmd.assert_type(twin, types_of(x))
    for axis in reversed(axes) if kind in ("all_gather", "spread", "all_to_all") else axes:  # the minor part goes first
        before, after = type_of(way.before, axis), type_of(way.after, axis)
        if kind in ROWS:
            twin = retyped(twin, types_of(twin) | {axis: _rows(kind, twin, axis, before, after)})
        else:
            twin = _CALLS[kind](twin, axis, dims, before, after)
    return types_of(twin)


def _rows(kind: str, twin: Tensor, axis: str, before: Type, after: Type) -> Type:
    """Rows whose number is data, as spmd_types has them: a tensor of as many pieces as there are ranks.

    Counts are integers that moec types as the values they count, so their own types are those that they come with.
    """
    names = spmd.current_mesh_names() or {}
    with spmd.no_typecheck():
        pieces = torch.zeros(names[axis].size(), 2, dtype=twin.dtype).requires_grad_(twin.requires_grad)
    counts = {axis: spmd.V} if kind in ("gather_counts", "exchange_counts") else {}
    spmd.assert_type(pieces, types_of(twin) | counts)
    match kind:
        case "gather_counts":
            found = spmd.all_gather(pieces, axis, src=spmd.V, dst=spmd.R)
        case "exchange_counts":
            found = spmd.all_to_all(pieces, axis, src=spmd.V, dst=spmd.V)
        case "gather_rows":
            found = spmd.all_gather(pieces, axis, src=before, dst=after)
        case "scatter_rows":
            found = spmd.reduce_scatter(pieces, axis, src=before, dst=after)
        case _:
            found = spmd.all_to_all(pieces, axis, src=before, dst=after)
    return spmd.get_axis_local_type(found, axis)


def _all_reduce(x: Tensor, axis: str, dims: Dims, before: Type, after: Type) -> Tensor:
    return spmd.all_reduce(x, axis, src=before, dst=after)


def _maximum(x: Tensor, axis: str, dims: Dims, before: Type, after: Type) -> Tensor:
    """spmd_types has no maximum among its collectives: everyone's are gathered, and the largest is taken."""
    return spmd.all_gather(x, axis, src=before, dst=after).amax(0)


def _all_gather(x: Tensor, axis: str, dims: Dims, before: Type, after: Type) -> Tensor:
    return spmd.all_gather(x, axis, src=_sharded(before, dims["dim"]), dst=after)


def _reduce_scatter(x: Tensor, axis: str, dims: Dims, before: Type, after: Type) -> Tensor:
    return spmd.reduce_scatter(x, axis, src=before, dst=_sharded(after, dims["dim"]))


def _all_to_all(x: Tensor, axis: str, dims: Dims, before: Type, after: Type) -> Tensor:
    return spmd.all_to_all(x, axis, src=_sharded(before, dims["join"]), dst=_sharded(after, dims["split"]))


def _convert(x: Tensor, axis: str, dims: Dims, before: Type, after: Type) -> Tensor:
    dim = dims.get("dim", 0)
    return spmd.convert(x, axis, src=_sharded(before, dim), dst=_sharded(after, dim), expert_mode=True)


def _sharded(found: Type, dim: int) -> Type | spmd.Shard:
    return spmd.S(dim) if found is spmd.V else found


_CALLS: Mapping[str, Callable[[Tensor, str, Dims, Type, Type], Tensor]] = {
    "all_reduce": _all_reduce,
    "all_reduce_max": _maximum,
    "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "all_to_all": _all_to_all,
    "take": _convert,
    "spread": _convert,
    "first": _convert,
}

"""Checks that every dim divides evenly over the axes it goes over."""

from math import prod

from moec.dsl.plan import FOLLOWS, Imported, Plan
from moec.dsl.report import Report
from moec.dsl.suggest import listed
from moec.dsl.tilings import say_divisors

_COUNTED = {"heads": "heads", "kv_heads": "key-value heads", "experts": "experts", "choices": "experts"}


def check_sizes(plan: Plan, report: Report) -> None:
    """Report dims that cannot be split evenly; batch and layers are checked apart, and vocab is padded."""
    for dim, size in _sizes(plan).items():
        atoms = plan.axes_of(dim)
        if size % plan.mesh.size(atoms):
            _report_uneven(plan, dim, size, atoms, report)


def _sizes(plan: Plan) -> dict[str, int]:
    model = plan.model
    if isinstance(model, Imported):
        named = {dim for given in model.inputs for dim in given.dims}
        return {name: value for name, value in model.arguments if name in named and isinstance(value, int)}
    sizes = {"seq": model.seq, "hidden": model.hidden, "heads": model.heads}
    if model.kv_heads != model.heads or "shard.kv_heads" in plan.places:
        sizes["kv_heads"] = model.kv_heads
    if model.ffn and any(not model.sparse(layer) for layer in range(model.experts.every if model.experts else 1)):
        sizes["ffn"] = model.ffn
    if model.experts:
        experts = model.experts
        sizes |= {"experts": experts.count, "choices": experts.count, "expert_ffn": experts.hidden}
    return sizes


def _report_uneven(plan: Plan, dim: str, size: int, atoms: tuple[str, ...], report: Report) -> None:
    line = plan.line_of(dim)
    assert line, "a dim without a line is whole"
    axes = [axis for axis in line.axes if set(plan.mesh.atoms_of(axis)) & set(atoms)]
    ranks = plan.mesh.size(atoms)
    follows = dim not in line.dims
    over = f"mesh {'axis' if len(axes) == 1 else 'axes'} {listed(axes)}"
    subject = f"`{dim}`, which follows `{FOLLOWS[dim]}`," if follows else f"`{dim}`"
    label = plan.dim_place(dim).label(f"{_said(dim, size)}, and {size} % {ranks} = {size % ranks}")
    notes = [plan.places[f"mesh.{axis}"].note(f"`{axis}` has size {plan.mesh.axis(axis).size}") for axis in axes]
    whole = ranks == prod(plan.mesh.axis(axis).size for axis in axes)  # a follower may be left a part of an axis
    what = "numbers of ranks" if not whole else "sizes" if len(axes) == 1 else f"products of {listed(axes)}"
    counted = f"{size} {_COUNTED[dim]}" if dim in _COUNTED else str(size)
    help = [f"{what} that divide {counted}: {say_divisors(size, ranks)}"]
    report.error("E203", f"{subject} cannot be split evenly over {over}", label, *notes, help=help)


def _said(dim: str, size: int) -> str:
    if dim == "expert_ffn":
        return f"experts have `hidden = {size}`"
    return f"{size} {_COUNTED[dim]}" if dim in _COUNTED else f"`{dim}` is {size}"

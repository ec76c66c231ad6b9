"""Says in words what a plan's mesh is: its axes and groups, and how weights and experts tile the ranks of a stage."""

from collections.abc import Iterable
from itertools import pairwise

from moec.dsl.mesh import Axis, Mesh
from moec.dsl.plan import Decoder, Plan
from moec.dsl.schema import WEIGHTS

_COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_FEW = 4


def show_mesh(plan: Plan) -> str:
    """The axes with a group of each, and both tilings of a stage as a reader of Megatron expects them."""
    return "\n".join([say_mesh(plan.mesh), "", *_table(plan), "", *say_tilings(plan)]) + "\n"


def say_mesh(mesh: Mesh) -> str:
    """One line: `four independent axes, 4·2·16·4 = 512 ranks`."""
    plain = [axis for axis in mesh.axes if not axis.over]
    count = _COUNTS[len(plain)] if len(plain) < len(_COUNTS) else str(len(plain))
    product = "·".join(str(axis.size) for axis in plain)
    ranks = f"{mesh.world_size} rank{'s' if mesh.world_size > 1 else ''}"
    sizes = f"{product} = {ranks}" if len(plain) > 1 else ranks
    independent = " independent" if len(plain) > 1 else ""
    said = f"{count}{independent} ax{'e' if len(plain) != 1 else 'i'}s, {sizes}"
    folds = [_say_fold(axis, mesh) for axis in mesh.axes if axis.over]
    return "; ".join([said, *folds])


def say_tilings(plan: Plan) -> list[str]:
    """How the ranks of a stage share out the dense weights, and how the experts: one line each."""
    stages = plan.mesh.axis(plan.pipeline_axis).size if plan.pipeline_axis else 1
    per_stage = plan.mesh.world_size // stages
    dense, experts = _tensor_atoms(plan, sparse=False), _tensor_atoms(plan, sparse=True)
    rows = [("dense weights", [("tensor", dense), *_rest(plan, dense)])]
    split = plan.axes_of("experts")
    if split or (isinstance(plan.model, Decoder) and plan.model.experts):
        inner = [atom for atom in experts if atom not in split]
        rows.append(("experts", [("tensor", inner), ("experts", list(split)), *_rest(plan, [*inner, *split])]))
    lines = [
        f"in each of {stages} pipeline stages, {per_stage} ranks:"
        if stages > 1
        else f"{per_stage} rank{'s' if per_stage > 1 else ''}:"
    ]
    return lines + [f"  {name:<14} {_factors(factors, plan.mesh)}" for name, factors in rows]


def _say_fold(fold: Axis, mesh: Mesh) -> str:
    spans = ", ".join(_say_atom(atom, mesh) for atom in mesh.atoms_of(fold.name)) or "one rank"
    return f"{fold.name} = {fold.size} folds over {', '.join(fold.over)}: {spans}"


def _say_atom(atom: str, mesh: Mesh) -> str:
    """`all 4 of tp`, or `the fast 2 of 4 of dp` where an axis is cut."""
    base, _, part = atom.partition(".")
    size, whole = mesh.size((atom,)), mesh.axis(base).size
    if not part:
        return f"all {size} of {base}"
    parts = [other.name for other in mesh.atoms if other.name.startswith(f"{base}.")]
    speed = "slow" if atom == parts[0] else "fast" if atom == parts[-1] else "middle"
    return f"the {speed} {size} of {whole} of {base}"


def _table(plan: Plan) -> list[str]:
    rows = [("axis", "size", "stride", "ranks beside rank 0", "dims over it")]
    for axis in plan.mesh.axes:
        group = plan.mesh.group(0, plan.mesh.atoms_of(axis.name))
        dims = [dim for line in plan.shard if axis.name in line.axes for dim in line.dims]
        rows.append((axis.name, str(axis.size), _stride(group), _few(group), ", ".join(dims)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [
        f"{name:<{widths[0]}}  {size:>{widths[1]}}  {stride:>{widths[2]}}  {ranks:<{widths[3]}}  {dims}".rstrip()
        for name, size, stride, ranks, dims in rows
    ]


def _stride(group: tuple[int, ...]) -> str:
    steps = {after - before for before, after in pairwise(group)}
    return "/".join(str(step) for step in sorted(steps)) if len(steps) < 3 else "mixed"


def _few(group: tuple[int, ...]) -> str:
    if len(group) <= _FEW + 1:
        return " ".join(map(str, group))
    return f"{' '.join(map(str, group[: _FEW - 1]))} … {group[-1]}"


def _tensor_atoms(plan: Plan, sparse: bool) -> list[str]:
    """The atoms that split the weights without an experts dim, or those with one, experts apart."""
    model = plan.model
    named = list(WEIGHTS.values()) if isinstance(model, Decoder) else [pattern.dims for pattern in model.weights]
    dims = {dim for weight in named if ("experts" in weight) == sparse for dim in weight if dim}
    split = {atom for dim in dims - {"experts"} for atom in plan.axes_of(dim)}
    return [atom.name for atom in plan.mesh.atoms if atom.name in split]


def _rest(plan: Plan, taken: Iterable[str]) -> list[tuple[str, list[str]]]:
    """The atoms of a stage that hold copies of a weight: those that split sequences, and those that split the batch."""
    used = {*taken, *(plan.mesh.atoms_of(plan.pipeline_axis) if plan.pipeline_axis else ())}
    left = [atom.name for atom in plan.mesh.atoms if atom.name not in used]
    seq = [atom for atom in left if atom in plan.axes_of("seq")]
    data = [atom for atom in left if atom in plan.axes_of("batch") and atom not in seq]
    idle = [atom for atom in left if atom not in seq and atom not in data]
    named = [("sequence", seq), ("data", data), ("copies", idle)]
    return [(name, atoms) for name, atoms in named if name == "data" or plan.mesh.size(atoms) > 1]


def _factors(factors: list[tuple[str, list[str]]], mesh: Mesh) -> str:
    said = []
    for name, atoms in factors:
        real = [atom for atom in atoms if mesh.size((atom,)) > 1]
        over = f" ({', '.join(real)})" if real else ""
        said.append(f"{name} {mesh.size(real)}{over}")
    return " · ".join(said)

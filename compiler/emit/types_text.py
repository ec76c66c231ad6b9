"""Types of values as docstrings and comments say them."""

from collections.abc import Sequence
from math import prod

from moec.compiler.emit.layout import whole
from moec.compiler.emit.sizes_text import SizeNames
from moec.compiler.placement import Axes, Placement
from moec.compiler.program import Collective, Program, Stage, Unit, Value


def type_text(program: Program, value: Value) -> str:
    """`ep S(batch)  tp R`: the axes on which a value is not the same everywhere."""
    placement, words = value.placement, []
    for dim, axes in enumerate(placement.split):
        if axes:
            words.append(f"{_axes(program, axes)} S({dim_name(value, dim)})")
    for letter, axes in (("P", placement.partial), ("P(max)", placement.highest), ("R", placement.replicated)):
        if axes:
            words.append(f"{_axes(program, axes)} {letter}")
    return "  ".join(words) or "I"


def letters(program: Program, placement: Placement, axes: Sequence[str], value: Value) -> str:
    """The type on some axes that have the same one: `P`, `S(batch)`."""
    axis = axes[0]
    dim = placement.dim_of(axis)
    return f"S({dim_name(value, dim)})" if dim is not None else placement.letter(axis)


def dim_name(value: Value, dim: int) -> str:
    name = value.dims[dim] if dim < len(value.dims) else None
    return name or str(dim)


def signature_text(program: Program, sizes: SizeNames, values: Sequence[tuple[str, Value]]) -> str:
    """`x, a [BATCH, SEQ, HIDDEN]  ep S(batch)`, for values under their names; those alike stand together."""
    groups: dict[str, list[str]] = {}
    for name, value in values:
        rows = "N" if value.ragged else ""
        shape = [rows, *sizes.shape(value)[-1:]] if rows else list(sizes.shape(value))
        types = type_text(program, value)
        text = "  ".join(
            whole(part) for part in (f"[{', '.join(shape)}]", *([] if types == "I" else types.split("  ")))
        )
        groups.setdefault(text, []).append(name)
    return ";  ".join(f"{', '.join(names)} {text}" for text, names in groups.items())


def same_axes(program: Program, value: Value) -> Axes:
    """The axes on which ranks of a stage have the same summand of a value."""
    plan = program.plan
    return tuple(
        atom.name
        for atom in plan.mesh.atoms
        if atom.size > 1 and atom.name != plan.pipeline_axis and value.placement.letter(atom.name) in "IR"
    )


def same_group(program: Program, value: Value) -> str:
    """The name of their group, "" if every rank has its own."""
    axes = same_axes(program, value)
    return program.plan.mesh.name(axes) if axes else ""


def same_count(program: Program) -> str:
    """The name of the group whose ranks count the same valid targets."""
    counter = program.counter
    return same_group(program, counter.values[counter.outputs[0]]) if counter else ""


def place_text(program: Program, stage: Stage) -> str:
    count = len(program.stages)
    return f"Stage {stage.index} of {count}" if count > 1 else "The only stage"


def bytes_text(program: Program, value: Value) -> str:
    """The size of a rank's part under the plan's own sizes."""
    if value.ragged:
        return f"rows of {_human(_row_bytes(program, value))}"
    return _human(prod(program.local_shape(value)) * _item_bytes(program, value))


def move_comment(program: Program, unit: Unit, item: Collective, backward: bool) -> str:
    """What a collective does to the type, how much it moves, among how many."""
    source, output = unit.values[item.source], unit.values[item.output]
    axes = item.move.axes
    count = program.plan.mesh.size(axes)
    if item.move.kind in ("exchange_counts", "gather_counts"):
        return f"{bytes_text(program, source)} x {count}: how many rows go where"
    before, after = letters(program, source.placement, axes, source), letters(program, output.placement, axes, output)
    if backward:
        moved = output if item.move.kind in ("all_gather", "share", "all_reduce", "gather_rows") else source
        why = {
            "share": "the ranks used it differently",
            "all_gather": "each rank's part of the sum",
            "all_to_all": "back",
            "reduce_scatter": "of the whole",
            "take": "of the whole",
            "send_rows": "back",
            "return_rows": "back",
            "gather_rows": "each rank's part of the sum",
            "scatter_rows": "of the whole",
        }.get(item.move.kind, f"{after} -> {before}, transposed")
        return f"{bytes_text(program, moved)} x {count}: {why}"
    return f"{bytes_text(program, source)} x {count}: {before} -> {after}{_reason(item)}"


def joined_comment(program: Program, unit: Unit, items: Sequence[Collective]) -> str:
    """How much sums in one message move backward, among how many."""
    moved = " + ".join(bytes_text(program, unit.values[item.output]) for item in items)
    return f"{moved} x {program.plan.mesh.size(items[0].move.axes)}: the ranks used them differently"


def _reason(item: Collective) -> str:
    return f", {item.reason}" if item.reason else ""


def _axes(program: Program, axes: Sequence[str]) -> str:
    return (
        program.plan.mesh.name(tuple(axes)).replace("_", ", ") if len(axes) > 1 else program.plan.mesh.name(tuple(axes))
    )


def _item_bytes(program: Program, value: Value) -> int:
    precision = {"bf16": 2, "fp32": 4, "fp64": 8}[program.plan.train.precision]
    if not value.dtype.is_floating_point:
        return value.dtype.itemsize
    return precision if value.dtype.itemsize == 2 else max(4, precision)


def _row_bytes(program: Program, value: Value) -> int:
    return program.local_shape(value)[-1] * _item_bytes(program, value)


def _human(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")

"""Prints every weight of a program: its shape, a rank's slice, and over which axes its gradient is summed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from moec.compiler.placement import Axes
from moec.compiler.program import Call, Parameter, Program, Stage, full_name
from moec.dsl.mesh import Mesh

HEADINGS = ("weight", "shape", "a rank's slice", "split", "gradient summed over", "stage")


def show_weights(program: Program) -> str:
    """A table with a line for each weight; layers that have the same ones share a line.

    `layers.{0..3}.wq.weight` are four weights, `layers.{1,3..7}.up` every second one from layer 1 to layer 7.
    """
    alike: dict[tuple[str, str, tuple[str, ...]], list[_Weight]] = {}
    for weight in _weights(program):
        alike.setdefault((weight.before, weight.after, weight.cells), []).append(weight)
    rows: list[tuple[str, ...]] = [HEADINGS]
    for (before, after, cells), weights in alike.items():
        numbers = sorted(weight.number for weight in weights if weight.number is not None)
        rows.append((before + numbers_text(numbers) + after, *cells, _stages_text(weights)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    rows.insert(1, tuple("─" * width for width in widths))
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "", *_totals(program), ""])


def numbers_text(numbers: list[int]) -> str:
    """`3`, `{0..3}`, `{1,3..7}`, or a list where there is no one step."""
    if len(numbers) < 2:
        return str(numbers[0]) if numbers else ""
    steps = {later - one for one, later in pairwise(numbers)}
    if steps == {1}:
        return f"{{{numbers[0]}..{numbers[-1]}}}"
    if len(numbers) > 3 and len(steps) == 1:
        return f"{{{numbers[0]},{numbers[1]}..{numbers[-1]}}}"
    return f"{{{','.join(map(str, numbers))}}}"


def axes_text(mesh: Mesh, axes: Axes) -> str:
    """`dp, tp`: the axes that span these atoms, and of an axis that a fold cuts the atom."""
    words: list[str] = []
    rest = axes
    while rest:
        runs = ((length, _axis_of(mesh, rest[:length])) for length in range(len(rest), 0, -1))
        length, name = next(((length, name) for length, name in runs if name), (1, rest[0]))
        words.append(name)
        rest = rest[length:]
    return ", ".join(words)


def _axis_of(mesh: Mesh, axes: Axes) -> str | None:
    by_kind = sorted(mesh.axes, key=lambda axis: bool(axis.over))
    return next((axis.name for axis in by_kind if mesh.atoms_of(axis.name) == axes), None)


@dataclass(frozen=True, slots=True)
class _Weight:
    """A weight of one layer, its name in parts around the number of the layer."""

    before: str
    number: int | None
    after: str
    cells: tuple[str, ...]
    stages: tuple[int, ...]


def _stages_text(weights: Sequence[_Weight]) -> str:
    stages = sorted({stage for weight in weights for stage in weight.stages})
    shared = all(len(weight.stages) > 1 for weight in weights)
    return numbers_text(stages).strip("{}") + (", shared" if shared else "")


def _weights(program: Program) -> list[_Weight]:
    found: dict[str, _Weight] = {}
    for stage in program.stages:
        for call in stage.calls:
            for parameter in program.units[call.unit].parameters:
                name = full_name(call.prefix, parameter.name)
                if name not in found:
                    found[name] = _weight(program, call, parameter, program.spans.get(name, (stage.index,)))
    return list(found.values())


def _weight(program: Program, call: Call, parameter: Parameter, stages: tuple[int, ...]) -> _Weight:
    value = program.units[call.unit].values[parameter.value]
    mesh = program.plan.mesh
    whole = [int(program.sizes.value(size, 0)) for size in value.shape]
    split = [
        f"{value.dims[dim] or f'dim {dim}'} over {axes_text(mesh, axes)}"
        for dim, axes in enumerate(value.placement.split)
        if axes
    ]
    summed = (axes_text(mesh, parameter.summed) or "nothing") if parameter.trainable else "not trained"
    cells = str(whole), str(program.local_shape(value)), "; ".join(split) or "whole", summed
    head, _, tail = call.prefix.rpartition(".")
    if call.repeated and tail.isdecimal():
        return _Weight(f"{head}." if head else "", int(tail), f".{parameter.name}", cells, stages)
    return _Weight(full_name(call.prefix, parameter.name), None, "", cells, stages)


def _totals(program: Program) -> list[str]:
    """The model's parameters, and the elements that a rank of each stage holds."""
    lines = [f"{program.parameters:,} parameters"]
    held = [_held(program, stage) for stage in program.stages]
    for count, stages in groupby(range(len(held)), key=lambda index: held[index]):
        numbers = list(stages)
        many = (
            f" of stage{'s' if len(numbers) > 1 else ''} {numbers_text(numbers).strip('{}')}" if len(held) > 1 else ""
        )
        lines.append(f"a rank{many} holds {count:,}")
    return lines


def _held(program: Program, stage: Stage) -> int:
    held = {name: value for name, _, value in program.weights(stage.calls)}
    return sum(math.prod(program.local_shape(value)) for value in held.values())

"""Joins the matrices that one value is multiplied by: one product instead of several, forward and backward.

Their weights keep their names, slices and initial values; they lie one after the other in memory, and the product reads
them as one.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from sympy import Add as Sum

from moec.compiler.placement import Placement
from moec.compiler.program import Compute, Op, Part, Program, Ref, Stacked, Unit, Value, full_name

LINEAR = "aten.linear"
VIEWS = (
    "transpose.int permute t slice.Tensor select.int unsqueeze squeeze squeeze.dim squeeze.dims expand unbind.int "
    "split.Tensor split_with_sizes chunk narrow movedim.int detach alias flatten.using_ints unflatten.int"
).split()
"""Operators whose result lies where their operand does."""

RESHAPES = ("view", "_unsafe_view")


def join_linears(program: Program) -> Program:
    """Linears of one region that read one value, on weights that nobody else reads, become one linear and its pieces.

    Requires: units with regions (type_units).
    Ensures:  the values of every unit are what they were; a weight is in at most one stack.
    """
    units = {}
    for name, unit in program.units.items():
        joining = _Joining(program, unit, _alone(program, name))
        units[name] = joining.run()
    return replace(program, units=units)


def _alone(program: Program, unit: str) -> set[str]:
    """Values of a unit's weights that are trained, and have this one name and one reader."""
    names = Counter(name for name, _, _ in program.weights(program.calls))
    tied = {*program.shared, *program.shared.values(), *(name for name, count in names.items() if count > 1)}
    described = program.units[unit]
    prefixes = [call.prefix for call in program.calls if call.unit == unit]
    return {
        parameter.value
        for parameter in described.parameters
        if parameter.trainable
        and not any(full_name(prefix, parameter.name) in tied for prefix in prefixes)
        and _readings(described)[parameter.value] == 1
    }


def _readings(unit: Unit) -> Counter[str]:
    """How often each value is read: by operators, collectives and those who take the unit's results."""
    found = Counter(unit.outputs)
    for item in unit.forward:
        if isinstance(item, Compute):
            found.update(name for op in item.ops for name in op.inputs)
        else:
            found[item.source] += 1
    return found


Alike = tuple[object, ...]
"""What the linears of one stack have in common."""


@dataclass(slots=True)
class _Joining:
    program: Program
    unit: Unit
    alone: set[str]

    def run(self) -> Unit:
        values = dict(self.unit.values)
        stacks: list[Stacked] = []
        forward = []
        for item in self.unit.forward:
            if isinstance(item, Compute):
                for linears in self._joinable(item):
                    self._name_results(item, linears, values)
                    item = _joined(item, linears, values, stacks)
            forward.append(item)
        return replace(self.unit, values=values, forward=tuple(forward), stacked=tuple(stacks))

    def _joinable(self, region: Compute) -> Iterator[list[Op]]:
        """Linears of a region by what they read, where there are several."""
        found: dict[Alike, list[Op]] = {}
        for op in region.ops:
            if op.target == LINEAR and self._fits(op, region):
                found.setdefault(self._alike(op), []).append(op)
        return (linears for linears in found.values() if len(linears) > 1)

    def _fits(self, op: Op, region: Compute) -> bool:
        x, *weights = op.inputs
        rows = self.unit.values[weights[0]]
        padded = rows.placement.split[0] and rows.dims[0] in self.program.padded
        inside = op.outputs[0] not in region.outputs
        mine = x not in weights and all(name in self.alone for name in weights)
        return mine and inside and not padded and _keeps_pieces(region, op.outputs[0], self.unit.values)

    def _alike(self, op: Op) -> Alike:
        summed = {parameter.value: parameter.summed for parameter in self.unit.parameters}
        x, *weights = op.inputs
        return (
            x,
            self.unit.values[op.outputs[0]].placement,
            *((summed[name], self.unit.values[name].placement, self.unit.values[name].dtype) for name in weights),
        )

    def _name_results(self, region: Compute, linears: Sequence[Op], values: dict[str, Value]) -> None:
        """Those without a name are called as what they are another view of, or else as the module of their weight."""
        names = {parameter.value: parameter.name for parameter in self.unit.parameters}
        for op in linears:
            value = values[op.outputs[0]]
            module = names[op.inputs[1]].removesuffix(".weight").rpartition(".")[2]
            values[value.name] = replace(value, hint=_becomes(region, value, values) or module)


def _keeps_pieces(region: Compute, name: str, values: Mapping[str, Value]) -> bool:
    """Can what reads a value in this region read it as columns of a wider one, whose rows lie apart?"""
    for op in region.ops:
        if name not in op.inputs:
            continue
        kind = op.target.removeprefix("aten.")
        if kind in RESHAPES:
            rank = len(values[name].shape)
            if values[op.outputs[0]].shape[: rank - 1] != values[name].shape[: rank - 1]:
                return False
        if kind in (*VIEWS, *RESHAPES) and not all(_keeps_pieces(region, y, values) for y in op.outputs):
            return False
    return True


def _joined(region: Compute, linears: Sequence[Op], values: dict[str, Value], stacks: list[Stacked]) -> Compute:
    """The region with one linear for several, and its result cut into theirs."""
    operands = list(zip(*(op.inputs[1:] for op in linears), strict=True))  # the matrices, and the biases if there are
    stacked = [_stack(parts, values, stacks) for parts in operands]
    outputs = [op.outputs[0] for op in linears]
    whole = _side_by_side(outputs, -1, values)
    first = linears[0]
    product = Op(LINEAR, (first.args[0], *map(Ref, stacked)), (), (whole,), first.where)
    cut = Op(*_cut(outputs, whole, values), (), tuple(outputs), first.where)
    ops: list[Op] = []
    for op in region.ops:
        if op is first:
            ops += [product, cut]
        elif op not in linears:
            ops.append(op)
    gone = {part: name for parts, name in zip(operands, stacked, strict=True) for part in parts}
    weights = dict.fromkeys(gone.get(name, name) for name in region.weights)
    return replace(region, ops=tuple(ops), weights=tuple(weights))


def _becomes(region: Compute, value: Value, values: Mapping[str, Value]) -> str:
    """What a piece is called: as the value that it is another view of."""
    readers = [op for op in region.ops if value.name in op.inputs]
    if value.label or len(readers) != 1 or readers[0].target.removeprefix("aten.") not in (*VIEWS, *RESHAPES):
        return value.label or value.hint
    return _becomes(region, values[readers[0].outputs[0]], values)


def _stack(parts: tuple[str, ...], values: dict[str, Value], stacks: list[Stacked]) -> str:
    name = _side_by_side(parts, 0, values)
    stacks.append(Stacked(name, parts))
    return name


def _side_by_side(parts: Sequence[str], dim: int, values: dict[str, Value]) -> str:
    """A new value that has these along one dim."""
    name = "__".join(parts)
    first = values[parts[0]]
    shape, dims = list(first.shape), list(first.dims)
    shape[dim], dims[dim] = Sum(*(values[part].shape[dim] for part in parts)), None
    values[name] = replace(first, name=name, shape=tuple(shape), dims=tuple(dims), label="", hint="")
    return name


def _cut(parts: Sequence[str], whole: str, values: Mapping[str, Value]) -> tuple[str, tuple[object, ...]]:
    """The operator that takes it apart: equal pieces, or such of these sizes."""
    placement: Placement = values[whole].placement
    sizes = [values[part].shape[-1] for part in parts]
    if len(set(sizes)) == 1:
        return "aten.chunk", (Ref(whole), len(parts), -1)
    return "aten.split_with_sizes", (Ref(whole), tuple(Part(size, placement.split[-1]) for size in sizes), -1)

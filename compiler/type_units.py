"""Types every call of the chain in order: a kind under one typing of its inputs is placed, cut and emitted once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from sympy import Expr

from moec.compiler.add_backward import add_backward
from moec.compiler.cut_regions import cut_regions
from moec.compiler.place import Placed, place, planned_split
from moec.compiler.placement import Axes, Placement
from moec.compiler.program import Call, Graph, Parameter, Program, Unit, Value, full_name, weights_of
from moec.compiler.unique import unique
from moec.dsl.diagnostics import Diagnostic, PlanError, plan_error
from moec.dsl.tilings import say_divisors

TypeKey = tuple[str, tuple[tuple[Placement, bool, tuple[str | None, ...]], ...], tuple[tuple[str, Axes], ...]]


def type_units(program: Program) -> Program:
    """Units with regions, collectives and backward, and every value between calls with its type.

    Requires: a chain of calls (split_model).
    Ensures:  each call names a unit whose inputs have the types of the call's; a weight that several units share has
              one slice, and over one set of axes its gradient is a partial sum.
    """
    shared: dict[str, Axes] = {}
    while True:
        typed = _Typing(program, shared)
        typed.run()
        typed.check_splits()
        typed.check_loss()
        summed = typed.summed_by_weight()
        uneven = {name: _union(sets) for name, sets in summed.items() if len(set(sets)) > 1}
        if all(set(axes) <= set(shared.get(name, ())) for name, axes in uneven.items()):
            break
        shared |= uneven
    return replace(program, units=typed.units, calls=tuple(typed.calls), values=typed.values, counter=typed.counter())


def _union(sets: list[Axes]) -> Axes:
    return tuple(sorted({axis for axes in sets for axis in axes}))


@dataclass(slots=True)
class _Typing:
    program: Program
    shared: Mapping[str, Axes]
    values: dict[str, Value] = field(default_factory=dict)
    units: dict[str, Unit] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    _known: dict[TypeKey, tuple[str, Placed]] = field(default_factory=dict)

    def run(self) -> None:
        self.values = dict(self.program.values)
        for given in self.program.inputs:
            name = f"input_{given.name}"
            self.values[name] = self._input(self.values[name], given.dims)
        for call in self.program.calls:
            self._type(call)

    def check_splits(self) -> None:
        """Raise PlanError for weights whose dims do not divide over their axes, in the plan or in its small sizes."""
        faults: dict[str, Diagnostic] = {}
        for name, _, value in weights_of(self.calls, self.units):
            for size, axes, dim in zip(value.shape, value.placement.split, value.dims, strict=True):
                fault = self._uneven(size, axes, dim, name)
                if fault is not None:
                    faults.setdefault(fault.headline, fault)
        if faults:
            raise PlanError(faults.values())

    def check_loss(self) -> None:
        """Raise PlanError for a loss that no weight has a part in."""
        if not self.values[self.program.loss].differentiable:
            help = "compute it from weights that are trained"
            raise plan_error("E410", "the loss does not depend on any weight", help)

    def _uneven(self, size: Expr, axes: Axes, dim: str | None, weight: str) -> Diagnostic | None:
        plan, parts = self.program.plan, self.program.plan.mesh.size(axes)
        for sizing, whose in ((0, ""), (1, " of the small arguments")):
            number = int(self.program.sizes.value(size, sizing))
            if number % parts and dim not in self.program.padded:
                label = plan.label(f"shard.{dim}")
                help = f"sizes that divide {number}: {say_divisors(number, parts)}"
                headline = f"`{dim}`{whose} cannot be split evenly over {plan.mesh.name(axes)}"
                where = f"{weight} has {number}, and {number} % {parts} = {number % parts}"
                return Diagnostic("E412", headline, (label,) if label else (), (where, help))
        return None

    def summed_by_weight(self) -> dict[str, list[Axes]]:
        found: dict[str, list[Axes]] = {}
        for name, parameter, _ in weights_of(self.calls, self.units):
            found.setdefault(name, []).append(parameter.summed)
        return found

    def counter(self) -> Unit | None:
        """The unit that counts what is valid: each rank its own part, or all of it where ranks would have to talk."""
        graph = self.program.count
        if graph is None:
            return None
        split = [self.values[name] for name in graph.inputs]
        whole = [replace(value, placement=Placement(tuple(() for _ in value.shape))) for value in split]
        for inputs in (split, whole):
            placed = place(graph, inputs, self.program.plan, self.program.sizes, {}, {})
            unit = self._unit("count", graph, placed, "")
            if len(unit.forward) == 1:
                return unit
        raise AssertionError("of whole inputs ranks count alone")

    def _input(self, value: Value, dims: tuple[str | None, ...]) -> Value:
        """An input of the model is read as the plan splits its dims."""
        return replace(value, kind="input", placement=Placement(planned_split(self.program.plan, dims)), dims=dims)

    def _type(self, call: Call) -> None:
        graph = self.program.graphs[call.unit]
        inputs = [self.values[name] for name in call.inputs]
        dims = {value: self._dims(graph, value, full_name(call.prefix, name)) for value, name in graph.weights}
        shared = {
            value: self.shared[full_name(call.prefix, name)]
            for value, name in graph.weights
            if full_name(call.prefix, name) in self.shared
        }
        key: TypeKey = (
            f"{call.unit} {sorted(dims.items(), key=str)}",
            tuple((value.placement, value.differentiable, value.dims) for value in inputs),
            tuple(sorted(shared.items())),
        )
        if key not in self._known:
            placed = place(graph, inputs, self.program.plan, self.program.sizes, dims, shared)
            name = unique(call.unit, self.units)
            placed = self._named(placed, call)
            self.units[name] = replace(self._unit(name, graph, placed, call.prefix), graph=call.unit)
            self._known[key] = name, placed
        name, placed = self._known[key]
        outer = dict(zip(graph.inputs, call.inputs, strict=True))
        self.calls.append(replace(call, unit=name, inputs=tuple(outer[inside] for inside, _ in placed.inputs)))
        for output, inside in zip(call.outputs, placed.outputs, strict=True):
            made, known = placed.values[inside], self.values[output]
            self.values[output] = replace(
                known,
                kind="activation",
                placement=made.placement,
                dims=made.dims,
                differentiable=made.differentiable,
                label=known.label or made.label,
            )

    def _named(self, placed: Placed, call: Call) -> Placed:
        """Results that the unit has no name for are called what the model calls them."""
        values = dict(placed.values)
        for inside, output in zip(placed.outputs, call.outputs, strict=True):
            if not values[inside].label and not values[inside].hint:
                values[inside] = replace(values[inside], hint=self.program.values[output].label)
        return replace(placed, values=values)

    def _dims(self, graph: Graph, value: str, name: str) -> tuple[str | None, ...]:
        rank = len(graph.values[value].shape)
        found = next((dims for pattern, dims in self.program.patterns if fnmatchcase(name, pattern)), ())
        return found if len(found) == rank else (None,) * rank

    def _unit(self, name: str, graph: Graph, placed: Placed, prefix: str) -> Unit:
        forward = cut_regions(placed)
        inputs = tuple(inside for _, inside in placed.inputs)
        reverse, seeds, gradients = add_backward(forward, inputs, placed.outputs, placed.values)
        parameters = tuple(
            Parameter(
                value,
                placed.names[value],
                next(
                    init
                    for pattern, init in self.program.initial
                    if fnmatchcase(full_name(prefix, placed.names[value]), pattern)
                ),
                axes,
                placed.values[value].kind == "weight",
            )
            for value, axes in placed.weights.items()
        )
        return Unit(name, inputs, placed.outputs, parameters, placed.values, forward, reverse, seeds, gradients)

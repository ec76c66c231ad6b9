"""A unit as text: its regions, and its forward and backward one under the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from moec.compiler.emit.expressions import Writer
from moec.compiler.emit.layout import quoted
from moec.compiler.emit.names import Line, common_name, identifier, name_values, weight_keys
from moec.compiler.emit.region_text import Function, region_text, wish
from moec.compiler.emit.sizes_text import SizeNames
from moec.compiler.emit.types_text import joined_comment, move_comment, signature_text
from moec.compiler.placement import Kind
from moec.compiler.program import (
    Accumulate,
    Add,
    Backward,
    Collective,
    Compute,
    Joined,
    Program,
    Reverse,
    Routing,
    Transposed,
    Unit,
    Value,
    binds,
    reads,
)
from moec.compiler.rules import MODULES
from moec.compiler.unique import unique

RUNTIME = "moec.runtime"
MOVES = get_args(Kind)
JOINED = "all_reduce_together"
RESERVED = ("torch", "F", "run", "tape", "w", "stage", "i", *MODULES, *MOVES, JOINED)


@dataclass(frozen=True, slots=True)
class UnitText:
    """The functions of a unit, and what they import."""

    regions: tuple[Function, ...]
    forward: Function
    backward: Function | None
    keys: Mapping[str, str]  # weight's value -> its name in the table of weights
    imports: Mapping[str, set[str]]
    uses_weights_backward: bool
    region_names: Mapping[str, str]  # region -> its function


def unit_text(program: Program, sizes: SizeNames, unit: Unit, instances: str, functions: set[str]) -> UnitText:
    """Write a unit; `functions` are the names of functions that the file has already, to which its own are added."""
    return _UnitWriter(program, sizes, unit, instances, functions).write()


@dataclass(slots=True)
class _UnitWriter:
    program: Program
    sizes: SizeNames
    unit: Unit
    instances: str
    functions: set[str]
    imports: dict[str, set[str]] = field(default_factory=dict)
    region_names: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    last_routed: dict[str, str] = field(
        default_factory=dict
    )  # arrivals -> output of the last collective that uses them

    def write(self) -> UnitText:
        unit = self.unit
        by_name = weight_keys([parameter.name for parameter in unit.parameters], RESERVED)
        self.keys = {parameter.value: by_name[parameter.name] for parameter in unit.parameters}
        for stack in unit.stacked:
            name = identifier(common_name([self.keys[part] for part in stack.parts]), RESERVED)
            self.keys[stack.value] = unique(name, set(self.keys.values()))
        writer = Writer(self.program, self.sizes, unit, self.imports)
        self._name_regions()
        reserved = (*RESERVED, *self.functions)
        regions = tuple(
            region_text(writer, item, self.region_names[item.name], self.keys, reserved)
            for item in unit.forward
            if isinstance(item, Compute)
        )
        self._name_values(reserved)
        for item in unit.forward:
            if isinstance(item, Collective) and item.routing is not None:
                self.last_routed[item.routing.arrivals] = item.output
        forward = self._forward()
        backward = self._backward(reserved)
        uses = any(isinstance(item, Accumulate) for item in unit.backward)
        return UnitText(regions, forward, backward, self.keys, self.imports, uses, self.region_names)

    # ---- Names.

    def _name_regions(self) -> None:
        """Functions of one file have different names; those of a unit that share one get the unit's before theirs."""
        for item in self.unit.forward:
            if isinstance(item, Compute):
                clash = item.name in self.functions or item.name == self.unit.name
                name = f"{self.unit.name}_{item.name}" if clash and item.name != self.unit.name else item.name
                name = name if name not in self.functions else unique(item.name, self.functions)
                self.region_names[item.name] = name
                self.functions.add(name)

    def _name_values(self, reserved: Sequence[str]) -> None:
        unit = self.unit
        alias = self._aliases()
        lines = [
            Line(
                tuple(alias.get(name, name) for name in _reads(item)),
                tuple(alias.get(name, name) for name in _binds(item)),
            )
            for item in unit.forward
            if not (isinstance(item, Collective) and item.output in alias)
        ]
        wishes = {name: wish(value) for name, value in unit.values.items()}
        given = _parameter_names(unit.inputs, wishes, reserved)
        kept = [alias.get(name, name) for name in unit.outputs]
        self.names = name_values(lines, given, wishes, reserved, kept)
        self.names |= {name: self.names[root] for name, root in alias.items() if root in self.names}

    def _aliases(self) -> dict[str, str]:
        """Values that are another value, as far as data goes."""
        alias: dict[str, str] = {}
        for item in self.unit.forward:
            if isinstance(item, Collective) and item.move.kind in ("share", "keep"):
                alias[item.output] = alias.get(item.source, item.source)
        return alias

    # ---- Forward.

    def _forward(self) -> Function:
        unit = self.unit
        body: list[str] = []
        for item in unit.forward:
            body += self._region_line(item) if isinstance(item, Compute) else self._collective_lines(item)
        body.append(f"return {', '.join(self.names[name] for name in unit.outputs)}")
        if (
            len(body) > 1
            and len(unit.outputs) == 1
            and body[-2].startswith(f"{self.names[unit.outputs[0]]} = tape.run(")
        ):
            body[-2:] = [body[-2].replace(f"{self.names[unit.outputs[0]]} =", "return", 1)]
        inputs = [self.names[name] for name in unit.inputs]
        signature = signature_text(
            self.program,
            self.sizes,
            [(self.names[name], unit.values[name]) for name in unit.inputs if unit.values[name].kind != "table"],
        )
        results = signature_text(
            self.program, self.sizes, [(self.names[name], unit.values[name]) for name in unit.outputs]
        )
        docstring = f"{self.instances}.  {signature}  ->  {results}"
        if len(docstring) > 110:
            docstring = f"{self.instances}.\n\n{signature}\n\n->  {results}"
        return Function(f"{unit.name}_forward", (*inputs, "w", "tape"), docstring, tuple(body))

    def _region_line(self, item: Compute) -> list[str]:
        arguments = [*(self._value(name) for name in item.inputs), *(f"w.{self.keys[name]}" for name in item.weights)]
        results = ", ".join(self.names[name] for name in item.outputs)
        name = self.region_names[item.name]
        if any(self.unit.values[output].differentiable for output in item.outputs):
            return [f"{results} = tape.run({', '.join([name, *arguments])})"]
        return [f"{results} = {name}({', '.join(arguments)})"]

    def _value(self, name: str) -> str:
        """How a value is called in the forward: a weight by its key."""
        return f"w.{self.keys[name]}" if name in self.keys and name not in self.names else self.names[name]

    def _collective_lines(self, item: Collective) -> list[str]:
        move, output = item.move, self.names.get(item.output, "")
        if move.kind in ("share", "keep"):
            return []
        source, group = self._value(item.source), quoted(self.program.plan.mesh.name(move.axes))
        self._import(move.kind)
        arguments = _dims_text(move.kind, move.dim, move.join)
        if move.kind in ("send_rows", "return_rows", "gather_rows", "scatter_rows"):
            source = ", ".join([source, *self._counts(item.routing)])
        call = f"{output} = {move.kind}({', '.join(part for part in (source, group, arguments) if part)})"
        comment = "" if move.silent else f"  # {move_comment(self.program, self.unit, item, backward=False)}"
        lines = [call + comment]
        if item.routing is not None and self._keeps(item):
            lines.append(f"tape.keep({', '.join(self._counts(item.routing))})")
        return lines

    def _counts(self, routing: Routing | None) -> list[str]:
        assert routing is not None, "ragged rows move with their counts"
        if routing.kind == "send":
            return [self.names[routing.counts], self.names[routing.arrivals]]
        return [self.names[routing.arrivals]]

    def _keeps(self, item: Collective) -> bool:
        """The counts of an exchange are put by when they are last used, which is when the backward first needs them."""
        assert item.routing is not None
        return self.last_routed[item.routing.arrivals] == item.output and self.unit.values[item.output].differentiable

    def _import(self, name: str) -> None:
        self.imports.setdefault(RUNTIME, set()).add(name)

    # ---- Backward.

    def _backward(self, reserved: Sequence[str]) -> Function | None:
        unit = self.unit
        if not unit.backward:
            return None
        kept = self._kept_before()
        seeds = [name for name in unit.seeds if name is not None]
        names = self._gradient_names(reserved, seeds, kept)
        body: list[str] = []
        for item in unit.backward:
            body += self._reverse_lines(item, names, kept)
        results = [names[gradient] for _, gradient in unit.gradients]
        if results:
            if len(results) == 1 and body and body[-1].startswith(f"{results[0]} = ") and "#" not in body[-1]:
                body[-1] = f"return {body[-1].removeprefix(f'{results[0]} = ')}"
            else:
                body.append(f"return {', '.join(results)}")
        weights = ["w"] if any(isinstance(item, Accumulate) for item in unit.backward) else []
        return Function(
            f"{unit.name}_backward",
            (*(names[name] for name in seeds), *weights, "tape"),
            "The same, transposed, last line first.",
            tuple(body),
        )

    def _kept_before(self) -> dict[str, Routing]:
        """Output of a collective -> the counts that its transpose is the first to need."""
        found = {}
        for item in self.unit.forward:
            if isinstance(item, Collective) and item.routing is not None and self._keeps(item):
                found[item.output] = item.routing
        return found

    def _gradient_names(
        self, reserved: Sequence[str], seeds: Sequence[str], kept: Mapping[str, Routing]
    ) -> dict[str, str]:
        unit = self.unit
        lines = []
        for item in unit.backward:
            needs, makes = reads(item), binds(item)
            if isinstance(item, Transposed) and item.of.output in kept:
                makes = (*makes, *(f"{name} kept" for name in _routing_values(kept[item.of.output])))
            if isinstance(item, Transposed) and item.of.routing is not None:
                needs = (*needs, *(f"{name} kept" for name in _routing_values(item.of.routing)))
            lines.append(Line(needs, makes))
        wishes = {
            name: f"d{wish(_value_of(name, unit.values))}"
            for line in lines
            for name in (*line.reads, *line.binds)
            if not name.endswith(" kept")
        }
        wishes |= {name: f"d{wish(_value_of(name, unit.values))}" for name in seeds}
        kept_names = {name for line in lines for name in (*line.reads, *line.binds) if name.endswith(" kept")}
        wishes |= {name: wish(unit.values[name.removesuffix(" kept")]) for name in kept_names}
        given = _parameter_names(seeds, wishes, reserved)
        return name_values(lines, given, wishes, reserved, [gradient for _, gradient in unit.gradients])

    def _reverse_lines(self, item: Reverse, names: Mapping[str, str], kept: Mapping[str, Routing]) -> list[str]:
        match item:
            case Backward(region=region, gradients=gradients, outputs=outputs):
                arguments = [self.region_names[region], *("None" if g is None else names[g] for g in gradients)]
                call = f"tape.back({', '.join(arguments)})"
                return [f"{', '.join(names[name] for name in outputs)} = {call}" if outputs else call]
            case Transposed():
                return self._transposed_lines(item, names, kept)
            case Joined(moves=moves):
                return [self._joined_line(moves, names)]
            case Add(terms=terms, output=output):
                return [f"{names[output]} = {' + '.join(names[term] for term in terms)}"]
            case Accumulate(weight=weight, source=source):
                self._import("accumulate")
                return [f"accumulate(w.{self.keys[weight]}, {names[source]})"]

    def _transposed_lines(self, item: Transposed, names: Mapping[str, str], kept: Mapping[str, Routing]) -> list[str]:
        move = item.of.move
        assert move.backward is not None
        lines = []
        if item.of.output in kept:
            values = _routing_values(kept[item.of.output])
            lines.append(f"{', '.join(names[f'{name} kept'] for name in values)} = tape.kept()")
        self._import(move.backward)
        group = quoted(self.program.plan.mesh.name(move.axes))
        source = names[item.source]
        if item.of.routing is not None:
            source = ", ".join([source, *(names[f"{name} kept"] for name in _routing_values(item.of.routing))])
        arguments = _dims_text(move.backward, move.join if move.backward == "all_to_all" else move.dim, move.dim)
        call = (
            f"{names[item.output]} = {move.backward}({', '.join(part for part in (source, group, arguments) if part)})"
        )
        silent = move.backward in ("take", "spread", "first")
        comment = "" if silent else f"  # {move_comment(self.program, self.unit, item.of, backward=True)}"
        return [*lines, call + comment]

    def _joined_line(self, moves: Sequence[Transposed], names: Mapping[str, str]) -> str:
        self._import(JOINED)
        outputs = ", ".join(names[move.output] for move in moves)
        sources = ", ".join(names[move.source] for move in moves)
        group = quoted(self.program.plan.mesh.name(moves[0].of.move.axes))
        comment = joined_comment(self.program, self.unit, [move.of for move in moves])
        return f"{outputs} = {JOINED}(({sources}), {group})  # {comment}"


def _parameter_names(values: Sequence[str], wishes: Mapping[str, str], reserved: Sequence[str]) -> dict[str, str]:
    """Different names for the parameters of a function."""
    names: dict[str, str] = {}
    for value in values:
        names[value] = unique(identifier(wishes[value], reserved), set(names.values()))
    return names


def _dims_text(kind: Kind, dim: int, join: int) -> str:
    """The arguments of a collective that say along which dims it works."""
    match kind:
        case "all_gather" | "reduce_scatter" | "take" | "spread":
            return f"dim={dim}"
        case "all_to_all":
            return f"split={dim}, join={join}"
        case _:
            return ""


def _routing_values(routing: Routing) -> tuple[str, ...]:
    return (routing.counts, routing.arrivals) if routing.kind == "send" else (routing.arrivals,)


def _value_of(gradient: str, values: Mapping[str, Value]) -> Value:
    """The value that a gradient is of, by the gradient's name."""
    name = gradient.removeprefix("d_")
    return values[name] if name in values else values[name.rpartition("__")[0]]


def _reads(item: Compute | Collective) -> tuple[str, ...]:
    if isinstance(item, Compute):
        return item.inputs
    return (item.source, *(_routing_values(item.routing) if item.routing else ()))


def _binds(item: Compute | Collective) -> tuple[str, ...]:
    return item.outputs if isinstance(item, Compute) else (item.output,)

"""A region as a function: a docstring of shapes and types, and its operators as a person would write them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moec.compiler.emit.expressions import Text, Writer
from moec.compiler.emit.names import Line, name_values
from moec.compiler.emit.types_text import signature_text
from moec.compiler.program import Compute, Op, Value

WIDTH = 100
"""Columns that an expression may have before it becomes a line of its own."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the emitted text, in finished lines."""

    name: str
    parameters: tuple[str, ...]
    docstring: str
    body: tuple[str, ...]


def region_text(
    writer: Writer, region: Compute, name: str, weights: Mapping[str, str], reserved: Sequence[str]
) -> Function:
    """The function of a region; `weights` are its parameters for weights, by value."""
    values = writer.unit.values
    inputs = _parameters(region, values, [weights[value] for value in region.weights], reserved)
    given = {**inputs, **{value: weights[value] for value in region.weights}}
    plan = _Plan(writer, region)
    lines = plan.lines()
    names = name_values(lines, given, {v: wish(values[v]) for v in values}, reserved, region.outputs)
    tensors = [n for v, n in given.items()]
    writer.device = f"{tensors[0]}.device" if tensors else ""
    body = plan.write(names)
    docstring = _docstring(writer, region, inputs, names)
    return Function(name, tuple(given.values()), docstring, tuple(body))


def wish(value: Value) -> str:
    """The name that a value should have."""
    return value.label or value.hint or {"weight": "w", "buffer": "b"}.get(value.kind, "h")


@dataclass(slots=True)
class _Plan:
    """Which operators are lines of their own, and which are part of the line of their only reader."""

    writer: Writer
    region: Compute
    readers: dict[str, int] = field(default_factory=dict)
    inlined: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for op in self.region.ops:
            for name in op.inputs:
                self.readers[name] = self.readers.get(name, 0) + 1
        trial = {name: Text("x" * 6) for op in self.region.ops for name in (*op.inputs, *op.outputs)}
        for op in self.region.ops:
            text = self.writer.expression(op, trial)
            if self._can_inline(op) and len(text.text) <= WIDTH:
                self.inlined.add(op.outputs[0])
                trial[op.outputs[0]] = text

    def _can_inline(self, op: Op) -> bool:
        value = self.writer.unit.values[op.outputs[0]]
        return (
            len(op.outputs) == 1
            and self.readers.get(op.outputs[0], 0) == 1
            and op.outputs[0] not in self.region.outputs
            and not value.label
        )

    def lines(self) -> list[Line]:
        """What every line reads and binds."""
        reads: dict[str, tuple[str, ...]] = {}
        found = []
        for op in self.region.ops:
            inner = tuple(name for given in op.inputs for name in (reads[given] if given in self.inlined else (given,)))
            if op.outputs[0] in self.inlined:
                reads[op.outputs[0]] = inner
            else:
                found.append(Line(inner, op.outputs))
        return found

    def write(self, names: Mapping[str, str]) -> list[str]:
        texts: dict[str, Text] = {value: Text(name) for value, name in names.items()}
        body: list[str] = []
        for op in self.region.ops:
            text = self.writer.expression(op, texts)
            if op.outputs[0] in self.inlined:
                texts[op.outputs[0]] = text
                continue
            body.append(f"{', '.join(self._target(output, names) for output in op.outputs)} = {text.text}")
        results = ", ".join(names[name] for name in self.region.outputs)
        if len(self.region.outputs) == 1 and body and body[-1].startswith(f"{results} = "):
            body[-1] = f"return {body[-1].removeprefix(f'{results} = ')}"
        else:
            body.append(f"return {results}")
        return body

    def _target(self, output: str, names: Mapping[str, str]) -> str:
        used = output in self.readers or output in self.region.outputs
        return names[output] if used else "_"


def _parameters(
    region: Compute, values: Mapping[str, Value], taken: Sequence[str], reserved: Sequence[str]
) -> dict[str, str]:
    """Names for the inputs of a region, other than those of its weights."""
    weights = {f" {name}": name for name in taken}  # as values that live throughout
    wishes = {name: wish(values[name]) for name in region.inputs}
    names = name_values([Line((), region.inputs)], weights, wishes, reserved, weights)
    return {value: names[value] for value in region.inputs}


def _docstring(writer: Writer, region: Compute, inputs: Mapping[str, str], names: Mapping[str, str]) -> str:
    values = writer.unit.values
    left = signature_text(writer.program, writer.sizes, [(inputs[name], values[name]) for name in region.inputs])
    right = signature_text(writer.program, writer.sizes, [(names[name], values[name]) for name in region.outputs])
    return (
        f"{left}\n\n->  {right}"
        if len(left) + len(right) > WIDTH
        else f"{left}  ->  {right}"
        if left
        else f"->  {right}"
    )

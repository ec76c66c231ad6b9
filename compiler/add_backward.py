"""Writes the backward of a unit: its forward transposed, last line first, with every collective in view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moec.compiler.program import Accumulate, Add, Backward, Collective, Compute, Forward, Reverse, Transposed, Value
from moec.compiler.unique import unique


@dataclass(slots=True)
class _Gradients:
    """The gradients of values found so far, as terms that are still to be summed."""

    reverse: list[Reverse] = field(default_factory=list)
    terms: dict[str, list[str]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def new(self, of: str) -> str:
        name = unique(f"d_{of}", self.names, "__")
        self.names.add(name)
        return name

    def add(self, value: str, gradient: str) -> None:
        self.terms.setdefault(value, []).append(gradient)

    def total(self, value: str) -> str | None:
        """The gradient of a value, summed over its readers; None if none of them gave one."""
        terms = self.terms.get(value, [])
        if len(terms) < 2:
            return terms[0] if terms else None
        name = self.new(value)
        self.reverse.append(Add(tuple(terms), name))
        self.terms[value] = [name]
        return name


def add_backward(
    forward: Sequence[Forward], inputs: Sequence[str], outputs: Sequence[str], values: Mapping[str, Value]
) -> tuple[tuple[Reverse, ...], tuple[str | None, ...], tuple[tuple[str, str], ...]]:
    """(instructions, names of the outputs' gradients, gradients of the inputs that get one).

    Ensures: a value that several read has its gradients summed; every region that has a gradient to give runs backward.
    """
    found = _Gradients()
    seeds: list[str | None] = []
    for name in outputs:
        carries = values[name].differentiable
        seeds.append(found.new(name) if carries else None)
        if carries:
            found.add(name, seeds[-1] or "")
    for item in reversed(forward):
        if isinstance(item, Compute):
            _region(item, values, found)
        else:
            _collective(item, values, found)
    gradients = []
    for name in inputs:
        if values[name].differentiable:
            total = found.total(name)
            if total is not None:
                gradients.append((name, total))
    return tuple(found.reverse), tuple(seeds), tuple(gradients)


def _region(region: Compute, values: Mapping[str, Value], found: _Gradients) -> None:
    outputs = [name for name in region.outputs if values[name].differentiable]
    if not outputs:
        return
    gradients = tuple(found.total(name) for name in outputs)
    inputs = [name for name in region.inputs if values[name].differentiable]
    made = tuple(found.new(name) for name in inputs)
    found.reverse.append(Backward(region.name, gradients, made))
    for name, gradient in zip(inputs, made, strict=True):
        found.add(name, gradient)


def _collective(item: Collective, values: Mapping[str, Value], found: _Gradients) -> None:
    if not values[item.output].differentiable:
        return
    total = found.total(item.output)
    if total is None:
        return
    if item.move.backward is not None:
        made = found.new(item.source)
        found.reverse.append(Transposed(item, total, made))
        total = made
    if values[item.source].kind == "weight":
        found.reverse.append(Accumulate(item.source, total))
    else:
        found.add(item.source, total)

"""What a step must leave behind, from the program instead of the text: the same terms, made by another way.

The program is walked micro-batch by micro-batch through all stages, without any schedule; sums have no order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from moec.compiler.check.execute import Counted, Effects, moved, weight_term
from moec.compiler.check.regions import Region, gradients_of, results_of
from moec.compiler.check.terms import Term, Terms
from moec.compiler.placement import Axes
from moec.compiler.program import (
    Accumulate,
    Add,
    Backward,
    Call,
    Collective,
    Compute,
    Joined,
    Program,
    Routing,
    Stage,
    Transposed,
    Unit,
    full_name,
)


@dataclass(frozen=True, slots=True)
class Sheet:
    """How the text of a stage calls what the program names."""

    regions: Mapping[tuple[str, str], Region]  # unit, region
    tables: Mapping[str, str]  # value of the model -> its name
    same: str  # the group whose members have the same loss
    same_count: str


def expected(program: Program, sheets: Sequence[Sheet], terms: Terms) -> list[Effects]:
    """The effects of every stage."""
    walk = _Walk(program, sheets, terms, [Effects() for _ in sheets])
    for i in range(program.plan.schedule.accumulate):
        walk.microbatch(i)
    return walk.effects


@dataclass(slots=True)
class _Done:
    """A call that ran forward: its values, and the arguments of its regions."""

    call: Call
    values: dict[str, Term]
    arguments: dict[str, tuple[Term, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class _Walk:
    program: Program
    sheets: Sequence[Sheet]
    terms: Terms
    effects: list[Effects]
    _names: dict[Axes, str] = field(default_factory=dict)  # of groups

    def microbatch(self, i: int) -> None:
        """Forward through all stages, and backward."""
        values: dict[str, Term] = {}
        done: list[list[_Done]] = []
        for stage, sheet in zip(self.program.stages, self.sheets, strict=True):
            done.append([self._forward(call, sheet, values, i) for call in stage.calls])
            if self.program.has_loss(stage):
                self.effects[stage.index].losses.append(Counted(values[self.program.loss], sheet.same))
                self._count(stage, sheet, i)
        gradients: dict[str, list[Term]] = {self.program.loss: [self.terms.make("seed")]}
        for stage in reversed(self.program.stages):
            for run in reversed(done[stage.index]):
                self._backward(run, stage, gradients)

    def _count(self, stage: Stage, sheet: Sheet, i: int) -> None:
        counter = self.program.counter
        if counter is None:
            return
        (compute,) = [item for item in counter.forward if isinstance(item, Compute)]
        args = [self._input(name.rpartition("__")[0] or name, counter, name, i) for name in compute.inputs]
        (count,) = results_of(sheet.regions["count", compute.name], tuple(args), self.terms)
        self.effects[stage.index].counts.append(Counted(count, sheet.same_count))

    # ---- Forward.

    def _forward(self, call: Call, sheet: Sheet, outer: dict[str, Term], i: int) -> _Done:
        unit = self.program.units[call.unit]
        values = dict(self._weights(call, unit))
        for name, inner in zip(call.inputs, unit.inputs, strict=True):
            kind = self.program.values[name].kind
            if kind == "input":
                values[inner] = self._input(name, unit, inner, i)
            elif kind == "table":
                values[inner] = self.terms.make("table", (sheet.tables[name],))
            else:
                values[inner] = outer[name]
        done = _Done(call, values)
        for item in unit.forward:
            if isinstance(item, Compute):
                args = tuple(values[name] for name in (*item.inputs, *item.weights))
                done.arguments[item.name] = args
                made = results_of(sheet.regions[unit.name, item.name], args, self.terms)
                values |= zip(item.outputs, made, strict=True)
            else:
                values[item.output] = self._moved(item, values)
        outer |= zip(call.outputs, (values[name] for name in unit.outputs), strict=True)
        return done

    def _input(self, name: str, unit: Unit, inner: str, i: int) -> Term:
        split = unit.values[inner].placement.split
        return self.terms.make("input", (name.removeprefix("input_"), split, i))

    def _weights(self, call: Call, unit: Unit) -> dict[str, Term]:
        names = {parameter.value: full_name(call.prefix, parameter.name) for parameter in unit.parameters}
        found = {p.value: weight_term(self.terms, (names[p.value],), p.trainable) for p in unit.parameters}
        for stack in unit.stacked:
            found[stack.value] = weight_term(self.terms, tuple(names[part] for part in stack.parts), True)
        return found

    def _moved(self, item: Collective, values: Mapping[str, Term]) -> Term:
        move, source = item.move, values[item.source]
        if move.kind in ("share", "keep"):
            return source
        counts = [values[name] for name in _routing(item.routing)] if _with_rows(move.kind) else []
        return self._collective(move.kind, move.axes, (source, *counts), _dims(move.kind, move.dim, move.join))

    def _collective(
        self, kind: str, axes: Axes, operands: tuple[Term, ...], dims: tuple[tuple[str, object], ...]
    ) -> Term:
        if axes not in self._names:
            self._names[axes] = self.program.plan.mesh.name(axes)
        return moved(kind, self._names[axes], dims, operands)

    # ---- Backward.

    def _backward(self, done: _Done, stage: Stage, outer: dict[str, list[Term]]) -> None:
        unit = self.program.units[done.call.unit]
        sheet = self.sheets[stage.index]
        gradients: dict[str, Term] = {}
        for output, seed in zip(done.call.outputs, unit.seeds, strict=True):
            if seed is not None:
                gradients[seed] = self.terms.sum(outer.pop(output))
        for item in unit.backward:
            match item:
                case Backward(region=name, gradients=given, outputs=outputs):
                    zero = self.terms.make("zeros")
                    found = gradients_of(
                        sheet.regions[unit.name, name],
                        done.arguments[name],
                        tuple(zero if gradient is None else gradients[gradient] for gradient in given),
                        lambda weight, gradient: self._add(stage, weight, gradient),
                    )
                    gradients |= zip(outputs, found, strict=True)
                case Transposed():
                    gradients[item.output] = self._transposed(item, gradients, done.values)
                case Joined(moves=moves):
                    for move in moves:
                        gradients[move.output] = self._transposed(move, gradients, done.values)
                case Add(terms=parts, output=output):
                    gradients[output] = self.terms.sum([gradients[part] for part in parts])
                case Accumulate(weight=weight, source=source):
                    self._add(stage, done.values[weight], gradients[source])
        names = dict(zip(unit.inputs, done.call.inputs, strict=True))
        for inner, gradient in unit.gradients:
            outer.setdefault(names[inner], []).append(gradients[gradient])

    def _transposed(self, item: Transposed, gradients: Mapping[str, Term], values: Mapping[str, Term]) -> Term:
        move = item.of.move
        assert move.backward is not None
        counts = [values[name] for name in _routing(item.of.routing)] if _with_rows(move.backward) else []
        dim, join = (move.join, move.dim) if move.backward == "all_to_all" else (move.dim, move.join)
        return self._collective(
            move.backward, move.axes, (gradients[item.source], *counts), _dims(move.backward, dim, join)
        )

    def _add(self, stage: Stage, weight: Term, gradient: Term) -> None:
        self.effects[stage.index].gradients.setdefault(weight.what, []).append(gradient)  # pyright: ignore[reportArgumentType]


def _with_rows(kind: str) -> bool:
    return kind in ("send_rows", "return_rows", "gather_rows", "scatter_rows")


def _routing(routing: Routing | None) -> tuple[str, ...]:
    assert routing is not None, "ragged rows move with their counts"
    return (routing.counts, routing.arrivals) if routing.kind == "send" else (routing.arrivals,)


def _dims(kind: str, dim: int, join: int) -> tuple[tuple[str, object], ...]:
    match kind:
        case "all_gather" | "reduce_scatter" | "take" | "spread":
            return (("dim", dim),)
        case "all_to_all":
            return ("join", join), ("split", dim)
        case _:
            return ()

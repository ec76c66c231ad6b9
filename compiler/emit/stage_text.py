"""A stage as a file: its units, its tables, and forward and backward of a micro-batch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from moec.compiler.decays import decays
from moec.compiler.emit.expressions import Writer, dtype_text
from moec.compiler.emit.layout import in_docstring, quoted
from moec.compiler.emit.names import identifier
from moec.compiler.emit.region_text import Function, region_text, wish
from moec.compiler.emit.sizes_text import SizeNames
from moec.compiler.emit.types_text import place_text, same_group
from moec.compiler.emit.unit_text import RESERVED, UnitText, unit_text
from moec.compiler.placement import Axes
from moec.compiler.program import Call, Compute, Loop, Parameter, Program, Stage, Unit, Value, full_name
from moec.compiler.unique import unique


@dataclass(frozen=True, slots=True)
class Family:
    """Weights whose gradients are summed over the same ranks."""

    name: str
    axes: Axes
    stages: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StageText:
    """What a stage's file is made of, in finished lines."""

    docstring: str
    imports: Mapping[str, tuple[str, ...]]
    weights: Mapping[str, tuple[tuple[str, str], ...]]  # unit -> (key, Weight(...))
    stacked: Mapping[str, tuple[tuple[str, tuple[str, ...]], ...]]  # unit -> (key of all, keys of the parts)
    units: tuple[tuple[str, tuple[str, ...]], ...]  # kind, prefixes, in the order of the loops
    inputs: tuple[tuple[str, str], ...]
    slots: tuple[tuple[str, tuple[str, ...]], ...]  # name of the tuple, slots
    texts: tuple[UnitText, ...]
    functions: tuple[Function, ...]
    families: tuple[Family, ...]
    tables: Mapping[str, str]  # values of the model that need neither weights nor data -> their names
    counter: str  # the function that counts what is valid, if this stage has it


def family_of(program: Program, axes: Axes, name: str) -> Family | None:
    """The ranks over which the gradient of a weight is summed; None if this rank's is all."""
    stages = program.spans.get(name, ())
    if not axes and not stages:
        return None
    words = [program.plan.mesh.name(axes)] if axes else []
    words += [f"stages_{'_'.join(str(stage) for stage in stages)}"] if stages else []
    return Family("_".join(words), axes, stages)


def weight_text(
    sizes: SizeNames, value: Value, parameter: Parameter, family: Family | None, decay: bool | tuple[str, ...]
) -> str:
    """`Weight("attn.wq.weight", (HEADS * HEAD_DIM, HIDDEN), (("tp",), ()), "dp", "normal 0.02")`."""
    shape = ", ".join(sizes.text(size) for size in value.shape)
    shape = f"({shape},)" if len(value.shape) == 1 else f"({shape})"
    split = repr(value.placement.split).replace("'", '"')
    parts = [quoted(parameter.name), shape, split, quoted(family.name if family else ""), quoted(parameter.init)]
    parts += [f"decay={_decay_text(decay)}"] if parameter.trainable and decay is not True else []
    parts += [] if parameter.trainable else ["trainable=False"]
    return f"Weight({', '.join(parts)})"


def _decay_text(decay: bool | tuple[str, ...]) -> str:
    """In which instances, if not in all: a tuple of their paths."""
    if isinstance(decay, bool):
        return repr(decay)
    paths = [quoted(path) for path in decay]
    return f"({', '.join(paths)}{',' if len(paths) == 1 else ''})"


def stage_text(program: Program, sizes: SizeNames, stage: Stage) -> StageText:
    return _StageWriter(program, sizes, stage).write()


@dataclass(slots=True)
class _StageWriter:
    program: Program
    sizes: SizeNames
    stage: Stage
    functions: set[str] = field(
        default_factory=lambda: {"forward", "backward", "make_tables", "reduce_gradients", "count"}
    )
    names: dict[str, str] = field(default_factory=dict)  # of the model's values, in this stage
    texts: dict[str, UnitText] = field(default_factory=dict)
    inputs: dict[tuple[str, str], str] = field(default_factory=dict)
    lists: dict[tuple[int, int], str] = field(
        default_factory=dict
    )  # loop, place in its body -> variable of the instances
    copies: dict[int, tuple[str, str]] = field(
        default_factory=dict
    )  # loop -> what it carries, and what that starts from

    def write(self) -> StageText:
        program, stage = self.program, self.stage
        for unit in self._units():
            self.texts[unit.name] = unit_text(program, self.sizes, unit, self._instances(unit.name), self.functions)
        self._name_values()
        self._name_lists()
        counter = self._count()
        functions = [*self._tables(), self._forward(), self._backward(), *counter, self._reduce()]
        slots = self._slots()
        imports: dict[str, set[str]] = {"moec.runtime": {"Weight"}}
        for text in self.texts.values():
            for module, names in text.imports.items():
                imports.setdefault(module, set()).update(names)
        if any(found for _, found in slots):
            imports["moec.runtime"].add("Slot")
        return StageText(
            self._docstring(),
            {module: tuple(sorted(names)) for module, names in sorted(imports.items())},
            self._weights(),
            self._stacked(),
            tuple(
                (call.unit, self._prefixes(loop, place)) for loop in stage.loops for place, call in enumerate(loop.body)
            ),
            self._input_table(),
            slots,
            tuple(self.texts.values()),
            tuple(functions),
            self._families(),
            {name: self.names[name] for name in self._tables_read()},
            counter[0].name if counter else "",
        )

    # ---- What the stage has.

    def _units(self) -> list[Unit]:
        return [self.program.units[name] for name in dict.fromkeys(call.unit for call in self.stage.calls)]

    def _prefixes(self, loop: Loop, place: int) -> tuple[str, ...]:
        return tuple(turn[place].prefix for turn in loop.turns)

    def _instances(self, unit: str) -> str:
        """The module paths of a unit's instances in this stage, for a docstring."""
        prefixes = [call.prefix for call in self.stage.calls if call.unit == unit and call.prefix]
        return in_docstring(ranges_text(prefixes)) or unit

    def _docstring(self) -> str:
        program = self.program
        parts = [self._instances(name) for name in dict.fromkeys(call.unit for call in self.stage.calls)]
        mesh = "  ".join(f"{axis.name} {axis.size}" for axis in program.plan.mesh.axes)
        place = f"{place_text(program, self.stage)} of {in_docstring(program.plan.name)}"
        return (
            f"{place}: {', '.join(parts)}.  Mesh {mesh}.\n\n"
            "Shapes are one rank's own. S split, I the same, R the same but used differently, P summands."
        )

    def _weights(self) -> dict[str, tuple[tuple[str, str], ...]]:
        tables: dict[str, tuple[tuple[str, str], ...]] = {}
        for unit in self._units():
            call = next(call for call in self.stage.calls if call.unit == unit.name)
            rows = []
            for parameter in unit.parameters:
                family = family_of(self.program, parameter.summed, full_name(call.prefix, parameter.name))
                family = family if parameter.trainable else None
                value = unit.values[parameter.value]
                text = weight_text(self.sizes, value, parameter, family, self._decay(unit, parameter, value))
                rows.append((self.texts[unit.name].keys[parameter.value], text))
            tables[unit.name] = tuple(rows)
        return tables

    def _decay(self, unit: Unit, parameter: Parameter, value: Value) -> bool | tuple[str, ...]:
        """Does a weight decay in all instances of a unit, in none, or in which?"""
        prefixes = dict.fromkeys(call.prefix for call in self.stage.calls if call.unit == unit.name)
        train, dims = self.program.plan.train, len(value.shape)
        which = tuple(prefix for prefix in prefixes if decays(train, full_name(prefix, parameter.name), dims))
        return which if 0 < len(which) < len(prefixes) else bool(which)

    def _stacked(self) -> dict[str, tuple[tuple[str, tuple[str, ...]], ...]]:
        tables = {}
        for unit in self._units():
            keys = self.texts[unit.name].keys
            rows = [(keys[stack.value], tuple(keys[part] for part in stack.parts)) for stack in unit.stacked]
            if rows:
                tables[unit.name] = tuple(rows)
        return tables

    def _families(self) -> tuple[Family, ...]:
        found: dict[str, Family] = {}
        for call in self.stage.calls:
            for parameter in self.program.units[call.unit].parameters:
                family = family_of(self.program, parameter.summed, full_name(call.prefix, parameter.name))
                if family is not None and parameter.trainable:
                    found[family.name] = family
        return tuple(found[name] for name in sorted(found))

    # ---- Names of what calls pass to each other: one a value, and one for what a loop carries.

    def _name_values(self) -> None:
        root: dict[str, str] = {}

        def find(name: str) -> str:
            while name in root:
                name = root[name]
            return name

        for number, loop in enumerate(self.stage.loops):
            self._join_loop(loop, number, root, find)
        values = self.program.values
        taken = set(RESERVED) | self.functions | {"inputs", "tables", "received"}
        order = [*self.stage.received, *(name for call in self.stage.calls for name in (*call.inputs, *call.outputs))]
        for name in dict.fromkeys(find(name) for name in order):
            if values[name].kind == "input":
                continue
            wished = values[name].label or next(
                (values[n].label for n in order if find(n) == name and values[n].label), ""
            )
            self.names[name] = unique(identifier(wished or self._inner_wish(name) or "h"), taken)
            taken.add(self.names[name])
        for name in order:
            if values[name].kind != "input":
                self.names[name] = self.names[find(name)]

    def _inner_wish(self, name: str) -> str:
        """What the units that make or read a value call it."""
        for call in self.stage.calls:
            unit = self.program.units[call.unit]
            for outer, inner in zip(call.inputs, unit.inputs, strict=True):
                if outer == name:
                    return wish(unit.values[inner])
        return ""

    def _join_loop(self, loop: Loop, number: int, root: dict[str, str], find) -> None:
        """What a turn gives to the next has one name, also what the first turn is given, if no one else reads it."""
        last = [name for call in loop.turns[-1] for name in call.outputs]
        for turn in loop.turns[:-1]:
            for name, final in zip((n for call in turn for n in call.outputs), last, strict=True):
                root[find(name)] = find(final)
        for place, call in enumerate(loop.body):
            for position, start in enumerate(call.inputs):
                carried = self._carried(loop, place, position)
                if carried is None:
                    continue
                if self._read_after(start, loop):
                    self.copies[number] = (carried, start)
                elif find(start) != find(carried):
                    root[find(start)] = find(carried)

    def _carried(self, loop: Loop, place: int, position: int) -> str | None:
        """The output of the last turn that an input of the body is, in every turn but the first."""
        if len(loop.turns) == 1:
            return self._replaced(loop.body[place], position)
        name = loop.turns[1][place].inputs[position]
        before = [output for call in loop.turns[0] for output in call.outputs]
        if name not in before:
            return None
        return [output for call in loop.turns[-1] for output in call.outputs][before.index(name)]

    def _replaced(self, call: Call, position: int) -> str | None:
        """A call's only output takes its first input's name, if that is no longer read and both are called alike."""
        values = self.program.values
        start = call.inputs[position]
        if position or len(call.outputs) != 1 or values[start].kind not in ("activation",) or not call.repeated:
            return None
        loop = Loop(((call,),))
        alike = values[call.outputs[0]].label in ("", values[start].label)
        return call.outputs[0] if alike and not self._read_after(start, loop) else None

    def _read_after(self, name: str, loop: Loop) -> bool:
        """Does anyone but the loop's first turn read a value?"""
        first = loop.body
        others = [call for call in self.stage.calls if call not in first]
        often = sum(call.inputs.count(name) for call in first) > 1
        return any(name in call.inputs for call in others) or name in self.stage.sent or (often and len(loop.turns) > 1)

    def _name_lists(self) -> None:
        taken = set(RESERVED) | self.functions | set(self.names.values()) | {"inputs", "tables", "received"}
        for number, loop in enumerate(self.stage.loops):
            for place, call in enumerate(loop.body):
                name = f"{call.unit}s" if len(loop.turns) > 1 else f"{call.unit}_weights"
                self.lists[number, place] = unique(name, taken)
                taken.add(self.lists[number, place])

    # ---- Forward.

    def _forward(self) -> Function:
        stage = self.stage
        body = ["tape = run.tape(i)"]
        body += [f"{self._tuple(stage.received)} = received"] if stage.received else []
        body += [f"{self._weight_lists()} = run.weights"]
        calls: list[str] = []
        for number, loop in enumerate(stage.loops):
            if number in self.copies:
                target, source = self.copies[number]
                calls.append(f"{self.names[target]} = {self.names[source]}")
            calls += self._loop_forward(loop, number)
        if self.inputs:
            body.append("inputs = run.inputs(i)")
        body += self._table_lines()
        body += calls
        if self.program.has_loss(self.stage):
            loss = self.names[self.program.loss]
            same = same_group(self.program, self.program.values[self.program.loss])
            body.append(f"run.add_loss({loss}{f', same={quoted(same)}' if same else ''})")
        if stage.sent:
            body.append(f"return {self._tuple(stage.sent)}")
        parameters = ("run", "i", "received") if stage.received else ("run", "i")
        return Function("forward", parameters, "Micro-batch i, forward.", tuple(body))

    def _tuple(self, values: Sequence[str]) -> str:
        names = ", ".join(self.names[value] for value in values)
        return f"({names},)" if len(values) == 1 else f"({names})" if not values else names

    def _weight_lists(self) -> str:
        lists = []
        for number, loop in enumerate(self.stage.loops):
            for place in range(len(loop.body)):
                name = self.lists[number, place]
                lists.append(name if len(loop.turns) > 1 else f"({name},)")
        return f"({lists[0]},)" if len(lists) == 1 else ", ".join(lists)

    def _table_lines(self) -> list[str]:
        return [f'{self.names[name]} = run.tables["{self.names[name]}"]' for name in self._tables_read()]

    def _tables_read(self) -> list[str]:
        values = self.program.values
        read = dict.fromkeys(name for call in self.stage.calls for name in call.inputs if values[name].kind == "table")
        return list(read)

    def _loop_forward(self, loop: Loop, number: int) -> list[str]:
        lines = []
        for place, call in enumerate(loop.body):
            weights = self._weight_variable(loop, number, place)
            arguments = [*self._arguments(call, number), weights, "tape"]
            results = ", ".join(self.names[name] for name in call.outputs)
            lines.append(f"{results} = {call.unit}_forward({', '.join(arguments)})")
        if len(loop.turns) == 1:
            return lines
        return [f"for {self._loop_variables(loop, number)}:", *(f"    {line}" for line in lines)]

    def _weight_variable(self, loop: Loop, number: int, place: int) -> str:
        if len(loop.turns) == 1:
            return self.lists[number, place]
        return "w" if len(loop.body) == 1 else f"w_{place}"

    def _loop_variables(self, loop: Loop, number: int, back: bool = False) -> str:
        lists = [self.lists[number, place] for place in range(len(loop.body))]
        lists = [f"reversed({name})" for name in lists] if back else lists
        if len(lists) == 1:
            return f"w in {lists[0]}"
        return f"{', '.join(f'w_{place}' for place in range(len(lists)))} in zip({', '.join(lists)}, strict=True)"

    def _carried_input(self, name: str, number: int) -> str:
        """An input of a loop's body: what the loop carries, rather than what that starts from."""
        target, source = self.copies.get(number, ("", ""))
        return target if name == source else name

    def _arguments(self, call: Call, number: int) -> list[str]:
        unit = self.program.units[call.unit]
        found = []
        for outer, inner in zip(call.inputs, unit.inputs, strict=True):
            name = self._carried_input(outer, number)
            if self.program.values[name].kind == "input":
                found.append(f'inputs["{self._input_key(name, unit.values[inner])}"]')
            else:
                found.append(self.names[name])
        return found

    def _input_key(self, name: str, value: Value) -> str:
        """The input under the way in which it is split here."""
        plain = name.removeprefix("input_")
        key = (plain, repr(value.placement.split))
        if key not in self.inputs:
            others = [known for known, _ in self.inputs if known == plain]
            self.inputs[key] = f"{plain}@{len(others) + 1}" if others else plain
        return self.inputs[key]

    def _input_table(self) -> tuple[tuple[str, str], ...]:
        return tuple((key, split) for (_, split), key in self.inputs.items())

    # ---- Backward.

    def _backward(self) -> Function:
        stage = self.stage
        carried = self._gradient_values(stage.sent)
        parameters = ["run", "i"] + (["received"] if carried else [])
        lines: list[str] = []
        terms: dict[str, list[str]] = {}
        names = {name: f"d{self.names[name]}" for name in self.names}
        for value in carried:
            terms.setdefault(self.names[value], []).append(names[value])
        body = ["tape = run.tape(i)"]
        body += [f"{self._gradients(carried, names)} = received"] if carried else []
        for number in reversed(range(len(stage.loops))):
            loop = stage.loops[number]
            turn: list[str] = []
            for place, call in reversed(list(enumerate(loop.body))):
                turn += self._call_backward(call, number, self._weight_variable(loop, number, place), terms, names)
            if len(loop.turns) > 1 and turn:
                needs = any(self.texts[call.unit].uses_weights_backward for call in loop.body)
                head = self._loop_variables(loop, number, back=True) if needs else f"_ in {self.lists[number, 0]}"
                turn = [f"for {head}:", *(f"    {line}" for line in turn)]
            lines += turn
            if number in self.copies:
                target, source = (self.names[value] for value in self.copies[number])
                terms.setdefault(source, []).extend(terms.pop(target, []))
        body += [f"{self._weight_lists()} = run.weights"] if self._backward_needs_lists() else []
        results = []
        for value in self._gradient_values(stage.received):
            total = self._total(terms.pop(self.names[value], []), names[value], lines)
            assert total, f"{value} is read by a later stage and has no gradient"
            results.append(total)
        body += lines
        if results:
            body.append(f"return ({results[0]},)" if len(results) == 1 else f"return {', '.join(results)}")
        return Function("backward", tuple(parameters), "Micro-batch i, backward.", tuple(body))

    def _backward_needs_lists(self) -> bool:
        return any(
            len(loop.turns) > 1 or any(self.texts[call.unit].uses_weights_backward for call in loop.body)
            for loop in self.stage.loops
        )

    def _gradient_values(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self.program.values[name].differentiable]

    def _gradients(self, values: Sequence[str], names: Mapping[str, str]) -> str:
        listed = ", ".join(names[value] for value in values)
        return f"({listed},)" if len(values) == 1 else listed

    def _call_backward(
        self, call: Call, number: int, weights: str, terms: dict[str, list[str]], names: Mapping[str, str]
    ) -> list[str]:
        unit = self.program.units[call.unit]
        text = self.texts[call.unit]
        if text.backward is None:
            return []
        lines: list[str] = []
        seeds = []
        for output, seed in zip(call.outputs, unit.seeds, strict=True):
            if seed is None:
                continue
            if output == self.program.loss:
                precise = self.program.values[output].dtype.itemsize >= 4
                seeds.append("run.seed" if precise else f"run.seed.to({dtype_text(self.program.values[output].dtype)})")
                continue
            total = self._total(terms.pop(self.names[output], []), names[output], lines)
            assert total, f"{output} of {call.unit} is read by no one"
            seeds.append(total)
        extra = [weights] if text.uses_weights_backward else []
        targets, later = [], []
        outer = dict(zip(unit.inputs, call.inputs, strict=True))
        for inner, _ in unit.gradients:
            value = self._carried_input(outer[inner], number)
            name = names[value]
            if terms.get(self.names[value]) or name in targets:
                waiting = (term for found in terms.values() for term in found)
                name = unique(name, {*targets, *names.values(), *waiting})
            targets.append(name)
            later.append((self.names[value], name))
        call_text = f"{call.unit}_backward({', '.join([*seeds, *extra, 'tape'])})"
        lines.append(f"{', '.join(targets)} = {call_text}" if targets else call_text)
        for value, name in later:
            terms.setdefault(value, []).append(name)
        return lines

    def _total(self, found: list[str], name: str, lines: list[str]) -> str:
        if len(found) > 1:
            lines.append(f"{name} = {' + '.join(found)}")
            return name
        return found[0] if found else ""

    # ---- The rest.

    def _slots(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        stage = self.stage
        pairs = (
            ("ACTIVATIONS_IN", stage.received, False),
            ("GRADIENTS_IN", self._gradient_values(stage.sent), True),
        )
        return tuple(
            (name, tuple(self._slot(value, back) for value in values)) for name, values, back in pairs if values
        )

    def _slot(self, name: str, back: bool) -> str:
        value = self.program.values[name]
        shape = ", ".join(self.sizes.shape(value))
        shape = f"({shape},)" if len(value.shape) == 1 else f"({shape})"
        title = f"d{self.names[name]}" if back else self.names[name]
        return f'Slot("{title}", {shape}, {dtype_text(value.dtype)}, grad={not back and value.differentiable})'

    def _tables(self) -> list[Function]:
        """Values that need neither weights nor data."""
        graph = self.program.tables
        read = self._tables_read()
        if graph is None or not read:
            return []
        named = {name: replace(graph.values[name], label=self.names[name]) for name in read}
        unit = Unit("tables", (), tuple(read), (), {**graph.values, **named}, ())
        needed = _behind(graph.ops, read)
        region = Compute("make_tables", (), (), tuple(op for op in graph.ops if set(op.outputs) & needed), tuple(read))
        writer = Writer(self.program, self.sizes, unit, {})
        function = region_text(writer, region, "make_tables", {}, RESERVED)
        *lines, last = function.body
        results = last.removeprefix("return ").split(", ") if last.startswith("return ") else []
        if len(results) != len(read) or "(" in last:
            lines, results = [*lines, f"{self.names[read[0]]} = {last.removeprefix('return ')}"], [self.names[read[0]]]
        pairs = ", ".join(f'"{self.names[name]}": {result}' for name, result in zip(read, results, strict=True))
        text = "Values that need neither weights nor data, made once."
        return [Function("make_tables", (), text, (*lines, f"return {{{pairs}}}"))]

    def _count(self) -> list[Function]:
        """What the loss is a sum over."""
        counter = self.program.counter
        if counter is None or not self.program.has_loss(self.stage):
            return []
        (region,) = [item for item in counter.forward if isinstance(item, Compute)]
        writer = Writer(self.program, self.sizes, counter, {})
        valid = region_text(writer, region, unique("valid", self.functions), {}, RESERVED)
        arguments = ", ".join(f'run.inputs(i)["{self._counted_key(name)}"]' for name in region.inputs)
        line = f"return [{valid.name}({arguments}) for i in range(run.job.accumulate)]"
        return [valid, Function("count", ("run",), "What the loss of each micro-batch is a sum over.", (line,))]

    def _counted_key(self, inner: str) -> str:
        counter = self.program.counter
        assert counter is not None
        origin = inner if inner.startswith("input_") and "__" not in inner else inner.rpartition("__")[0]
        return self._input_key(origin, counter.values[inner])

    def _reduce(self) -> Function:
        lines = []
        for family in self._families():
            count = self.program.plan.mesh.size(family.axes) * max(1, len(family.stages))
            over = f" on stages {' and '.join(str(s) for s in family.stages)}" if family.stages else ""
            lines.append(f'run.reduce("{family.name}")  # among {count} ranks, each with its own samples or part{over}')
        return Function(
            "reduce_gradients",
            ("run",),
            "Sum the gradients of weights that several ranks have.",
            tuple(lines or ["pass"]),
        )


def ranges_text(prefixes: Sequence[str]) -> str:
    """`layers.0 to layers.3`, where numbers follow each other."""
    runs: list[list[str]] = []
    for prefix in prefixes:
        stem, _, number = prefix.rpartition(".")
        last = runs[-1][-1].rpartition(".") if runs else ("", "", "")
        follows = last[0] == stem and last[2].isdigit() and number.isdigit() and int(number) == int(last[2]) + 1
        if follows:
            runs[-1].append(prefix)
        else:
            runs.append([prefix])
    words = [run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return ", ".join(words) if len(words) <= 6 else f"{', '.join(words[:4])} ... {words[-1]}"


def _behind(ops, wanted: Sequence[str]) -> set[str]:
    needed = set(wanted)
    for op in reversed(ops):
        if set(op.outputs) & needed:
            needed |= set(op.inputs) | set(op.outputs)
    return needed

"""Splits the traced model into a chain of unit calls: elements of module lists, and what stands between them.

An operator between elements belongs to the last place in the chain where it can stand. What needs neither weights nor
data becomes tables, which every stage makes for itself. Of a loss that is (sum, count), what counts is a unit too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import nn

from moec.compiler.count_in_integers import count_in_integers
from moec.compiler.merge import LAYER
from moec.compiler.model import Model
from moec.compiler.program import Call, Graph, Op, Program, Ref, renamed
from moec.compiler.trace import Traced
from moec.compiler.unique import unique
from moec.dsl.diagnostics import plan_error
from moec.dsl.plan import Plan


def split_model(plan: Plan, model: Model, traced: Traced) -> Program:
    """The model as a chain of calls.

    Requires: the root graph's outputs are a loss, or its sum and its count.
    Ensures:  every operator of the root graph that matters is in one unit, or in the tables, or counts.
    """
    root = _with_handed_weights(_with_input_names(traced.root, model))
    if len(root.outputs) not in (1, 2) or root.values[root.outputs[0]].shape:
        headline = "the model must return a loss, a scalar, or a pair (sum, count) of scalars"
        raise plan_error("E410", headline, "return what its forward should make small, such as `loss.mean()`")
    maker = {output: op for op in root.ops for output in op.outputs}
    loss = root.outputs[0]
    needed = _behind([loss], maker)
    tables = _constant(root, needed)
    count = _count(root, maker, tables) if len(root.outputs) == 2 else None
    main = [op for op in root.ops if op.outputs[0] in needed and op not in tables]
    segments = _segments(main, root.outputs)
    graphs: dict[str, Graph] = dict(traced.kinds)
    calls: list[Call] = []
    for position, segment in enumerate(segments):
        if len(segment) == 1 and segment[0].target == LAYER:
            calls.append(_element_call(segment[0], traced))
        else:
            name = _glue_name(segment, root, position, len(segments), set(graphs))
            graphs[name] = _cut_out(root, segment, {loss}, main)
            calls.append(Call(name, "", graphs[name].inputs, graphs[name].outputs))
    used = {name for call in calls for name in call.inputs}
    table_graph = _cut_out(root, tables, used, []) if tables else None
    values = {
        name: replace(value, kind="input") if name in root.inputs else value for name, value in root.values.items()
    }
    for call in calls:  # results of alike elements have the name that one of them is given
        for place, output in enumerate(call.outputs):
            alike = (values[other.outputs[place]].label for other in calls if other.unit == call.unit)
            values[output] = replace(values[output], label=values[output].label or next(filter(None, alike), ""))
    if table_graph is not None:
        values |= {name: replace(values[name], kind="table") for name in table_graph.outputs}
    return Program(
        plan=plan,
        sizes=traced.sizes,
        inputs=model.inputs,
        graphs=graphs,
        calls=tuple(calls),
        values=values,
        tables=table_graph,
        count=count,
        loss=loss,
        patterns=model.patterns,
        initial=model.initial,
        padded=model.padded,
        shared=traced.shared,
        unsaved=_unsaved(model.modules[0]),
        state=frozenset(model.modules[0].state_dict(keep_vars=True)),
    )


def _unsaved(module: nn.Module) -> frozenset[str]:
    """Names of buffers that a module leaves out of its state_dict."""
    return frozenset({name for name, _ in module.named_buffers()} - module.state_dict(keep_vars=True).keys())


def _with_input_names(root: Graph, model: Model) -> Graph:
    """The graph with the plan's names for the inputs of the model."""
    names = {old: f"input_{given.name}" for old, given in zip(root.inputs, model.inputs, strict=True)}
    ops = tuple(
        replace(
            op,
            args=tuple(renamed(a, names) for a in op.args),
            kwargs=tuple((k, renamed(a, names)) for k, a in op.kwargs),
        )
        for op in root.ops
    )
    labels = {f"input_{given.name}": given.name for given in model.inputs}
    values = {
        names.get(n, n): replace(v, name=names.get(n, n), label=labels.get(names.get(n, ""), v.label))
        for n, v in root.values.items()
    }
    return replace(root, inputs=tuple(names.values()), ops=ops, values=values)


def _with_handed_weights(root: Graph) -> Graph:
    """The graph in which an element that is given a weight of the model gets a copy, which a unit before it makes."""
    weights = {name for name, _ in root.weights}
    copies: dict[str, str] = {}
    values = dict(root.values)
    ops: list[Op] = []
    for op in root.ops:
        for name in op.inputs if op.target == LAYER else ():
            if name in weights and name not in copies:
                copies[name] = unique(f"{name}_copy", values)
                values[copies[name]] = replace(values[name], name=copies[name], kind="activation")
                ops.append(Op("aten.clone", (Ref(name),), (), (copies[name],), op.where))
        args = tuple(renamed(argument, copies) for argument in op.args) if op.target == LAYER else op.args
        ops.append(replace(op, args=args))
    return replace(root, ops=tuple(ops), values=values)


def _behind(outputs: Sequence[str], maker: dict[str, Op]) -> set[str]:
    """Names of all values that these depend on."""
    found: set[str] = set()
    waiting = list(outputs)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            op = maker.get(name)
            if op is not None:
                found |= set(op.outputs)
                waiting += op.inputs
    return found


def _constant(root: Graph, needed: set[str]) -> list[Op]:
    """Operators that need neither weights nor data."""
    moving = {*root.inputs, *(name for name, _ in root.weights)}
    tables: list[Op] = []
    for op in root.ops:
        if op.target == LAYER or any(name in moving for name in op.inputs):
            moving |= set(op.outputs)
        elif op.outputs[0] in needed:
            tables.append(op)
    return tables


def _count(root: Graph, maker: dict[str, Op], tables: list[Op]) -> Graph:
    count = root.outputs[1]
    behind = _behind([count], maker)
    ops = [op for op in root.ops if op.outputs[0] in behind]
    weights = {name for name, _ in root.weights}
    if any(op.target == LAYER or op in tables or weights & set(op.inputs) for op in ops) or not ops:
        headline = "the count of the model's (sum, count) must follow from its inputs alone"
        raise plan_error("E410", headline, "count what the inputs say, such as `(label >= 0).sum()`")
    whole = count_in_integers(_cut_out(root, ops, {count}, []))
    dtype = whole.values[count].dtype
    if dtype.is_floating_point:
        headline = f"the count of the model's (sum, count) is of type {str(dtype).removeprefix('torch.')}, not whole"
        help = "count in whole numbers, such as `(label >= 0).sum()`"
        raise plan_error("E410", headline, _said_at(maker[count]), help)
    return whole


def _said_at(op: Op) -> str:
    return f"{op.where.file}:{op.where.line}: {op.where.code}"


def _segments(main: Sequence[Op], outputs: Sequence[str]) -> list[list[Op]]:
    """The chain: elements in their order, and before each what it needs that no earlier one does."""
    elements = [op for op in main if op.target == LAYER]
    place_of = {id(op): 2 * n + 1 for n, op in enumerate(elements)}
    last = 2 * len(elements)
    latest: dict[str, int] = {}
    for op in reversed(main):
        if op.target != LAYER:
            readers = [latest[name] for name in op.outputs if name in latest]
            place_of[id(op)] = min(readers, default=last)
        place = place_of[id(op)]
        for name in op.inputs:
            before = place - 1 if op.target == LAYER else place
            latest[name] = min(latest.get(name, last), before)
    segments: dict[int, list[Op]] = {}
    for op in main:
        segments.setdefault(place_of[id(op)], []).append(op)
    return [segments[place] for place in sorted(segments)]


def _element_call(op: Op, traced: Traced) -> Call:
    inputs, path, _ = op.args
    assert isinstance(inputs, tuple) and isinstance(path, str)
    given = tuple(ref.name for ref in inputs if isinstance(ref, Ref))
    return Call(traced.kind_of[path], path, given, op.outputs, repeated=True)


def _cut_out(root: Graph, ops: Sequence[Op], wanted: Iterable[str], main: Sequence[Op]) -> Graph:
    """The operators as a graph of their own, with what others read of them as outputs."""
    made = [name for op in ops for name in op.outputs]
    inside = set(made)
    mine = {id(op) for op in ops}
    outside = {name for op in main if id(op) not in mine for name in op.inputs} | set(wanted)
    weights = dict(root.weights)
    read = list(dict.fromkeys(name for op in ops for name in op.inputs if name not in inside))
    return Graph(
        tuple(name for name in read if name not in weights),
        tuple((name, weights[name]) for name in read if name in weights),
        tuple(ops),
        tuple(name for name in made if name in outside),
        root.values,
    )


def _glue_name(segment: Sequence[Op], root: Graph, position: int, count: int, taken: set[str]) -> str:
    """The child of the model that has the last weight here, or where it stands."""
    weights = dict(root.weights)
    owners = [op.where.path.partition(".")[0] for op in segment if any(name in weights for name in op.inputs)]
    plain = "start" if position == 0 else "end" if position == count - 1 else "between"
    base = next((name for name in reversed(owners) if name), plain)
    return unique(base, taken)

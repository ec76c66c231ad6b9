"""Makes one graph of the records of one module at several sizings: literals that differ become formulas (sizes.py)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sympy import Expr
from torch import Tensor
from torch.fx import Node

from moec.compiler.program import Argument, Graph, Kind, Op, Ref, Value, Where, whole
from moec.compiler.recorded import Made, Recorded, frames_at, made, path_of, place_of, schema_of, several
from moec.compiler.sizes import Sizes
from moec.compiler.source_names import Frame, labels_of, parameter_of, same_function
from moec.dsl.diagnostics import PlanError, plan_error

LAYER = "moec.layer"
"""The target of a call of a module-list element in the graph of the whole model."""


def merge(records: Sequence[Recorded], sizes: Sizes, prefix: str, shared: Mapping[str, str]) -> Graph:
    """One graph of all records; `prefix` is the module path of what was recorded."""
    graphs = [record.nodes for record in records]
    targets = [[str(node.target) for node in graph if node.op == "call_function"] for graph in graphs]
    if any(other != targets[0] for other in targets) or len({len(graph) for graph in graphs}) > 1:
        raise _other_structure()
    return _Merger(records, sizes, prefix, shared).graph(list(zip(*graphs, strict=True)))


def _other_structure() -> PlanError:
    headline = "the small arguments change which operators run, or what they read"
    return plan_error("E404", headline, "choose `small` arguments of the same structure")


def _shape(value: object) -> object:
    """What is the same of an argument at every sizing: all of it but a number."""
    if isinstance(value, Node):
        return value.name
    if isinstance(value, list | tuple):
        return len(value)
    return int if isinstance(value, int | float) and not isinstance(value, bool) else value


def _positional(node: Node, count: int) -> list[object]:
    """So many arguments: those that are left out, as torch does with what a schema has itself, are put in."""
    return [*node.args, *(default for _, default in _arguments(node)[len(node.args) : count])]


def _named(node: Node, key: str) -> object:
    return node.kwargs.get(key, dict(_arguments(node)).get(key))


def _arguments(node: Node) -> list[tuple[str, object]]:
    """Names and defaults of an operator's arguments."""
    schema = schema_of(node)
    return [(argument.name, argument.default_value) for argument in schema.arguments] if schema is not None else []


@dataclass(slots=True)
class _Merger:
    """Walks the nodes of all records in step."""

    records: Sequence[Recorded]
    sizes: Sizes
    prefix: str
    shared: Mapping[str, str]
    values: dict[str, Value] = field(default_factory=dict)
    renames: dict[str, str] = field(default_factory=dict)  # getitem nodes and copies -> values
    outputs: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of operators with several

    def graph(self, pairs: Sequence[tuple[Node, ...]]) -> Graph:
        inputs: list[str] = []
        weights: dict[str, str] = {}
        ops: list[Op] = []
        results: tuple[str, ...] = ()
        for nodes in pairs:
            first = nodes[0]
            match first.op:
                case "placeholder" if self.records[0].given[first.name].kind == "constant":
                    ops.append(self._constant(nodes))
                case "placeholder":
                    self._placeholder(nodes, inputs, weights)
                case "call_function":
                    op = self._operator(nodes)
                    if op is not None:
                        ops.append(op)
                case "output":
                    listed = first.args[0] if isinstance(first.args[0], tuple | list) else ()
                    results = tuple(self._name(node) for node in listed if isinstance(node, Node))
        self._label([nodes[0] for nodes in pairs if nodes[0].op == "call_function"], ops, inputs)
        self._name_results(ops)
        used = {name for op in ops for name in op.inputs} | set(results)
        return Graph(
            tuple(inputs), tuple((v, n) for v, n in weights.items() if v in used), tuple(ops), results, self.values
        )

    def _placeholder(self, nodes: tuple[Node, ...], inputs: list[str], weights: dict[str, str]) -> None:
        name = nodes[0].name
        given = self.records[0].given[name]
        if given.kind == "input":
            inputs.append(name)
            self._add(nodes, name, "activation", given.target)
            return
        target = self.shared.get(f"{self.prefix}.{given.target}" if self.prefix else given.target, "")
        below = f"{self.prefix}." if self.prefix else ""
        if target and not target.startswith(below):
            raise plan_error(
                "E408", f"`{self.prefix}.{given.target}` is the same weight as `{target}`, in another layer"
            )
        own = target.removeprefix(below) if target else given.target
        twin = next((value for value, known in weights.items() if known == own), None)
        if twin is not None:
            self.renames[name] = twin
            return
        weights[name] = own
        self._add(nodes, name, "weight" if given.kind == "weight" else "buffer", given.target)

    def _constant(self, nodes: tuple[Node, ...]) -> Op:
        """A number that the model made a tensor of; raises PlanError for more than one."""
        given = [record.given[node.name] for record, node in zip(self.records, nodes, strict=True)]
        held = [each.tensor for each in given if isinstance(each.tensor, Tensor)]
        place, target = place_of(nodes[0]), given[0].target
        if any(x.dim() for x in held):
            what = f"holds the constant tensor `{target}`" if target else "makes a tensor of constants in its forward"
            raise plan_error("E407", f"the model {what}", *place, "register it as a buffer")
        if any(x.is_meta for x in held):
            headline = "the model has a constant tensor on the meta device, where its number is lost"
            raise plan_error("E407", headline, *place, "write the number itself, or register it as a buffer")
        self._add(nodes, nodes[0].name, "activation", "")
        number = self._argument(tuple(x.item() for x in held), "number")
        kwargs = (("dtype", self.values[nodes[0].name].dtype),)
        return Op("aten.scalar_tensor", (number,), kwargs, (nodes[0].name,))

    def _operator(self, nodes: tuple[Node, ...]) -> Op | None:
        first = nodes[0]
        target = str(first.target).removesuffix(".default")
        if "getitem" in target and isinstance(first.args[0], Node) and first.args[0].name in self.outputs:
            self.renames[first.name] = self.outputs[first.args[0].name][int(str(first.args[1]))]
            return None
        same = _same_as(first, target)
        if same is not None:
            self.renames[first.name] = self._name(same)
            return None
        if target in RANDOM:
            raise self._random(first, target)
        target = "aten.contiguous" if target == "aten.clone" else target
        names = [name for name, _ in _arguments(first)]
        most = max(len(node.args) for node in nodes)
        args = tuple(
            self._argument(pair, names[place] if place < len(names) else "size")
            for place, pair in enumerate(zip(*(_positional(node, most) for node in nodes), strict=True))
        )
        keys = dict.fromkeys(key for node in nodes for key in node.kwargs)
        named = {key: tuple(_named(node, key) for node in nodes) for key in keys}
        kwargs = tuple(
            (key, self._argument(values, key))
            for key, values in named.items()
            if key not in ("pin_memory", "layout", "device", "memory_format") and any(x is not None for x in values)
        )
        parts = several(first)
        if parts is not None:
            outputs = tuple(f"{first.name}_{place}" for place in range(len(parts)))
            self.outputs[first.name] = outputs
            if target == "aten.broadcast_tensors":
                self.outputs[first.name] = self._broadcast(nodes, outputs)
                if not set(outputs) & set(self.outputs[first.name]):
                    return None
            for place, output in enumerate(outputs):
                vals = tuple((several(node) or ())[place] for node in nodes)
                self.values[output] = self._value(output, vals, "activation", "")
        else:
            outputs = (first.name,)
            self._add(nodes, first.name, "activation", "")
        target = LAYER if target == "moec_trace.layer" else target
        if target in _LIKE:
            target, args = _LIKE[target], (args[0], self.values[first.name].shape)
        return Op(target, args, kwargs, outputs, self._where(first))

    def _broadcast(self, nodes: tuple[Node, ...], outputs: tuple[str, ...]) -> tuple[str, ...]:
        """What tensors of one shape become: themselves, where nothing is repeated at any of the sizings."""
        named = list(outputs)
        for place in range(len(outputs)):
            given = [node.args[0][place] for node in nodes if isinstance(node.args[0], list | tuple)]
            tensors = [x for x in given if isinstance(x, Node)]
            becomes = [(several(node) or ())[place] for node in nodes]
            if all(made(x).shape == its.shape for x, its in zip(tensors, becomes, strict=True)):
                named[place] = self._name(tensors[0])
        return tuple(named)

    def _random(self, node: Node, target: str) -> PlanError:
        where = self._where(node)
        place = place_of(node) or [f"in `{where.path}`"]
        help = "take it out, or set its probability to 0: what is random would differ from mesh to mesh"
        return plan_error("E413", f"the model draws random numbers in its forward, with `{target}`", *place, help)

    def _argument(self, values: tuple[object, ...], name: str) -> Argument:
        first = values[0]
        if any(_shape(value) != _shape(first) for value in values):
            raise _other_structure()
        if isinstance(first, Node):
            return Ref(self._name(first))
        if isinstance(first, list | tuple):
            parts = [list(value) for value in values if isinstance(value, list | tuple)]
            return tuple(self._argument(pair, name) for pair in zip(*parts, strict=True))
        if isinstance(first, int | float) and not isinstance(first, bool) and len(set(values)) > 1:
            return self.sizes.express(tuple(v for v in values if isinstance(v, int | float)), name)
        return first

    def _name(self, node: object) -> str:
        assert isinstance(node, Node), f"{node} is no value"
        return self.renames.get(node.name, node.name)

    def _add(self, nodes: tuple[Node, ...], name: str, kind: Kind, label: str) -> None:
        self.values[name] = self._value(name, tuple(made(node) for node in nodes), kind, label)

    def _value(self, name: str, vals: tuple[Made, ...], kind: Kind, label: str) -> Value:
        shape: tuple[Expr, ...] = tuple(self.sizes.express(pair) for pair in zip(*(v.shape for v in vals), strict=True))
        return whole(name, shape, vals[0].dtype, kind, label)

    def _where(self, node: Node) -> Where:
        chain = frames_at(node)
        at = chain[-1] if chain else Frame("", 0, "", "")
        return Where(path_of(node), at.file, at.line, at.code)

    def _label(self, nodes: list[Node], ops: Sequence[Op], inputs: Sequence[str]) -> None:
        """Give values the names that the model's source has for them."""
        chains = [frames_at(node) for node in nodes]
        for node, names in zip(nodes, labels_of(chains), strict=True):
            source = (
                node.args[0].name if "getitem" in str(node.target) and isinstance(node.args[0], Node) else node.name
            )
            outputs = self.outputs.get(source, ()) if len(names) > 1 else (self.renames.get(node.name, node.name),)
            if len(names) == len(outputs):
                for output, name in zip(outputs, names, strict=True):
                    self._set_label(output, name)
        of = {op.outputs[0]: op for op in ops}
        chain_of = {self.renames.get(node.name, node.name): chain for node, chain in zip(nodes, chains, strict=True)}
        for op in ops:
            for name in op.inputs:
                value = self.values[name]
                if value.label or value.kind != "activation" or name not in of:
                    continue
                mine, theirs = chain_of.get(name, ()), chain_of.get(op.outputs[0], ())
                depth = next((d for d, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), 0)
                entered = depth + same_function(mine[depth : depth + 1], theirs[depth : depth + 1])
                self._set_hint(name, parameter_of(theirs, entered))

    def _name_results(self, ops: Sequence[Op]) -> None:
        """What has no name yet is the result of a part of the unit."""
        for op in ops:
            part = op.where.path.partition(".")[0]
            hint = "part" if len(op.outputs) > 1 else f"{part}_out" if part else ""
            for name in op.outputs:
                if not self.values[name].label and not self.values[name].hint:
                    self._set_hint(name, hint)

    def _set_label(self, name: str, label: str) -> None:
        if label.isidentifier() and name in self.values:
            self.values[name] = replace(self.values[name], label=label)

    def _set_hint(self, name: str, hint: str) -> None:
        if hint.isidentifier():
            self.values[name] = replace(self.values[name], hint=hint)


_LIKE = {"aten.view_as": "aten.view", "aten.reshape_as": "aten.reshape", "aten.expand_as": "aten.expand"}
"""Operators that look at another tensor only for its shape."""

RANDOM = frozenset(
    f"aten.{name}"
    for name in (
        "alpha_dropout bernoulli bernoulli.p dropout feature_dropout multinomial native_dropout normal_functional "
        "poisson rand rand_like randint randint.low randint_like randn randn_like randperm rrelu"
    ).split()
)


def _same_as(node: Node, target: str) -> Node | None:
    """The value that a node merely gives another name; None if it makes something."""
    if target in ("aten.alias", "aten.lift_fresh_copy"):
        same = not node.kwargs
    elif target in ("aten.dropout", "aten.feature_dropout", "aten.alpha_dropout"):
        same = not node.args[1] or not node.args[2]
    else:
        return None
    first = node.args[0]
    return first if same and isinstance(first, Node) else None

"""Traces the model: its lists of equal modules once a kind, and what stands around them as units of its own.

One forward on the meta device hashes the operators of the elements of module lists, but for those that are like one
before them in every attribute and weight; elements of one hash are one kind. A kind is exported once for each of the
sizings, and the model itself with a single node in place of every element. Literals of the exports together give
formulas (sizes.py).
"""

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from sympy import Expr
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec
from torch.fx import GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

from moec.compiler.model import Model
from moec.compiler.on_meta import on_meta
from moec.compiler.program import Argument, Graph, Kind, Op, Ref, Value, Where, whole
from moec.compiler.sizes import Sizes
from moec.compiler.source_names import Frame, frames_of, labels_of, parameter_of, same_function
from moec.compiler.unique import unique
from moec.compiler.untraceable import untraceable
from moec.dsl.diagnostics import PlanError, plan_error

_BETWEEN = (str(Path(torch.__file__).parent), str(Path(__file__).with_name("on_meta.py")))
"""Where frames are that lie between the model's code and an operator."""

LAYER = "moec.layer"
"""The target of a call of a module-list element in the graph of the whole model."""


@dataclass(frozen=True, slots=True)
class Traced:
    """The graph of the whole model, in which elements of module lists are single operators, and a graph a kind."""

    root: Graph
    kinds: Mapping[str, Graph]
    kind_of: Mapping[str, str]  # path of an element -> its kind
    sizes: Sizes
    shared: Mapping[str, str]  # weights with several names: name -> the first


def trace(model: Model) -> Traced:
    """Graphs of the model and of each of its kinds; raises PlanError where torch.export cannot follow."""
    sizes = Sizes(model.sizings)
    shared = _shared_names(model.modules[0])
    records = [_record(model.modules[0], _examples(model, 0), {})]
    alike = {call.path: call.hash for call in records[0]}
    records += [_record(module, _examples(model, n + 1), alike) for n, module in enumerate(model.modules[1:])]
    if any([call.path for call in record] != [call.path for call in records[0]] for record in records):
        raise plan_error(
            "E404", "the small arguments change which modules run", "let `small` keep the number of layers"
        )
    _check_shared(model.modules[0], shared)
    kind_of = _name_kinds(model.modules[0], records[0])
    kinds: dict[str, Graph] = {}
    for calls in zip(*records, strict=True):
        path = calls[0].path
        if kind_of[path] not in kinds:
            exports = [
                _export(module.get_submodule(path), *_unlike(call.args, call.kwargs))
                for module, call in zip(model.modules, calls, strict=True)
            ]
            kinds[kind_of[path]] = _merge(exports, sizes, path, shared)
    roots = []
    for sizing, module in enumerate(model.modules):
        with _stubs(module, records[sizing]):
            roots.append(_export(module, _examples(model, sizing), {}))
    return Traced(_merge(roots, sizes, "", shared), kinds, kind_of, sizes, shared)


# ---- Which elements of module lists run, with what, and which of them are alike.


@dataclass(slots=True)
class _Call:
    """One call of an element of a module list."""

    path: str
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    hash: str
    outputs: list[Tensor] = field(default_factory=list)
    spec: TreeSpec | None = None


class _Hash(TorchDispatchMode):
    """Hashes operators with shapes, constants and the names of the element's own parameters."""

    def __init__(self, element: nn.Module) -> None:
        super().__init__()
        self.digest = hashlib.blake2b(digest_size=16)
        self._names = {id(p): name for name, p in (*element.named_parameters(), *element.named_buffers())}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        described = tree_map_only(Tensor, self._describe, (args, kwargs or {}))
        self.digest.update(f"{func} {described}\n".encode())
        return func(*args, **(kwargs or {}))

    def _describe(self, x: Tensor) -> str:
        frozen = "" if x.requires_grad or id(x) not in self._names else "frozen"
        return f"{self._names.get(id(x), '')}{frozen}{tuple(x.shape)}{x.dtype}"


def _elements(module: nn.Module, path: str = "") -> list[tuple[str, nn.Module]]:
    """The elements of the outermost lists of modules, in order."""
    found: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        below = f"{path}.{name}" if path else name
        if isinstance(child, nn.ModuleList):
            found += [(f"{below}.{index}", element) for index, element in enumerate(child)]
        elif _is_list(child):
            found += [(f"{below}.{key}", element) for key, element in child.named_children()]
        else:
            found += _elements(child, below)
    return found


def _is_list(module: nn.Module) -> bool:
    """A Sequential or a ModuleDict of layers: of its elements some are of one class, and have parts themselves."""
    if not isinstance(module, nn.Sequential | nn.ModuleDict):
        return False
    kinds = Counter(type(element) for element in module.children() if any(True for _ in element.children()))
    return any(count > 1 for count in kinds.values())


def _record(module: nn.Module, inputs: tuple[Tensor, ...], alike: Mapping[str, str]) -> list[_Call]:
    """Run the model on the meta device and note every call of an element; of those known to be alike, run one."""
    calls: list[_Call] = []
    known: dict[str, _Call] = {}

    def recorder(path: str, element: nn.Module, forward: Callable[..., object]) -> Callable[..., object]:
        def record(*args: object, **kwargs: object) -> object:
            likeness = alike.get(path) or _likeness(element, args, kwargs)
            twin = known.get(likeness)
            if twin is not None and twin.spec is not None:
                calls.append(_Call(path, args, kwargs, twin.hash, twin.outputs, twin.spec))
                return tree_unflatten(twin.outputs, twin.spec)
            with _Hash(element) as mode:
                result = forward(*args, **kwargs)
            outputs, spec = tree_flatten(result)
            layout = f"{[x for x in tree_flatten((args, kwargs))[0] if not isinstance(x, Tensor)]}{spec}"
            mode.digest.update(f"{type(element).__qualname__}{layout}".encode())
            digest = alike.get(path) or mode.digest.hexdigest()
            known[likeness] = _Call(path, args, kwargs, digest, outputs, spec)
            calls.append(known[likeness])
            return result

        return record

    with ExitStack() as stack:
        for path, element in _elements(module):
            stack.enter_context(_forward_as(element, recorder(path, element, element.forward)))
        try:
            with on_meta():
                result = module(*inputs)
        except (Exception, SystemExit) as error:
            raise untraceable(error) from error
    _check_result(result)
    return calls


def _check_result(result: object) -> None:
    """Raise PlanError where a model returns something else than a tensor, or two."""
    parts = result if isinstance(result, tuple | list) else (result,)
    if len(parts) in (1, 2) and all(isinstance(part, Tensor) for part in parts):
        return
    kinds = ", ".join(type(part).__name__ for part in parts)
    said = f"{type(result).__name__} ({kinds})" if isinstance(result, tuple | list) else type(result).__name__
    headline = f"the model must return a loss, a scalar, or a pair (sum, count) of scalars, and returns a {said}"
    keys = [key for key in result if isinstance(key, str)] if isinstance(result, Mapping) else []
    help = "return the tensor alone, such as `return loss`"
    if len(parts) == 2 and isinstance(parts[1], int | float):
        help = "make the count a tensor, such as `torch.tensor(label.numel())`"
    elif keys:
        help = f"return the tensor of `{'loss' if 'loss' in keys else keys[0]}` alone"
    raise plan_error("E410", headline, help)


def _likeness(element: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
    """What an element and its call are made of: equal for two only if their operators are; what is unknown differs."""
    leaves, spec = tree_flatten((args, kwargs))
    seen: dict[int, int] = {}  # tensors that are one are one in both
    parts: list[object] = [spec, *(_shown(leaf, seen) for leaf in leaves)]
    for name, module in element.named_modules(remove_duplicate=False):
        own = {key: value for key, value in vars(module).items() if key not in ("_modules", "forward")}
        parts += [name, type(module), *(f"{key}={_shown(value, seen)}" for key, value in sorted(own.items()))]
    return repr(parts)


def _shown(value: object, seen: dict[int, int]) -> str:
    match value:
        case Tensor():
            number = seen.setdefault(id(value), len(seen))
            return f"{type(value).__name__}{number}{tuple(value.shape)}{value.dtype}{value.requires_grad}"
        case dict():
            return f"{{{', '.join(f'{key}: {_shown(item, seen)}' for key, item in value.items())}}}"
        case tuple() | list() | set():
            return f"{type(value).__name__}({', '.join(_shown(item, seen) for item in value)})"
        case int() | float() | str() | None | torch.dtype() | torch.device():
            return repr(value)
        case _:
            return f"{type(value).__name__} {id(value)}"


class _forward_as(AbstractContextManager[None]):
    """Runs another function in place of a module's forward."""

    def __init__(self, module: nn.Module, forward: Callable[..., object]) -> None:
        self._module, self._forward = module, forward

    def __enter__(self) -> None:
        self._module.__dict__["forward"] = self._forward

    def __exit__(self, *_: object) -> None:
        del self._module.__dict__["forward"]


def _name_kinds(module: nn.Module, calls: Sequence[_Call]) -> dict[str, str]:
    """A name for the kind of every element: that of its list, and of what sets it apart from the list's other kinds."""
    hashes: dict[str, dict[str, str]] = {}  # list -> hash -> path of the first
    of_path: dict[str, str] = {}
    for call in calls:
        hashes.setdefault(call.path.rpartition(".")[0], {}).setdefault(call.hash, call.path)
        if of_path.setdefault(call.path, call.hash) != call.hash:
            raise plan_error(
                "E405", f"`{call.path}` runs twice, each time differently", "call it with equal shapes, or copy it"
            )
    names: dict[tuple[str, str], str] = {}
    for list_path, firsts in hashes.items():
        base = _singular(list_path.replace(".", "_"))
        children = [{type(m).__name__ for m in module.get_submodule(path).modules()} for path in firsts.values()]
        for own, (digest, path) in zip(children, firsts.items(), strict=True):
            others = [set.intersection(*(c for c in children if c is not own))] if len(children) > 1 else []
            apart = [
                type(m).__name__
                for m in module.get_submodule(path).modules()
                if others and type(m).__name__ not in others[0]
            ]
            name = _word(base if len(firsts) == 1 else f"{_snake(apart[0])}_{base}" if apart else base)
            taken = set(names.values())
            names[list_path, digest] = unique(name, taken)
    return {call.path: names[call.path.rpartition(".")[0], call.hash] for call in calls}


def _check_shared(module: nn.Module, shared: Mapping[str, str]) -> None:
    """Raise PlanError where an element has a weight of what is outside of it."""
    for path, _ in _elements(module):
        for name, first in shared.items():
            if name.startswith(f"{path}.") and not first.startswith(f"{path}."):
                raise plan_error(
                    "E408", f"`{name}` is the same weight as `{first}`, in another layer", "give each layer its own"
                )


def _word(name: str) -> str:
    """The name itself if Python can say it, else what is left of it: it goes into programs."""
    return name if name.isidentifier() and name.isascii() else f"kind_{re.sub('[^A-Za-z0-9]+', '_', name).strip('_')}"


def _singular(name: str) -> str:
    return name[:-1] if name.endswith("s") and len(name) > 2 else name


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


# ---- Export.

_LIBRARY = torch.library.Library("moec_trace", "DEF")
_LIBRARY.define("layer(Tensor[] inputs, str path, int call) -> Tensor[]")
_SHAPES: list[list[Tensor]] = []
"""What the calls of elements give, while a model is exported: the operator's shape function cannot know otherwise."""


@torch.library.register_fake("moec_trace::layer", lib=_LIBRARY)
def _layer_shapes(inputs: list[Tensor], path: str, call: int) -> list[Tensor]:
    return [inputs[0].new_empty(x.shape, dtype=x.dtype) for x in _SHAPES[call]]


class _Stub(nn.Module):
    """Stands for an element: one operator, and no weights that an export would have to carry. Attributes are its."""

    def __init__(self, element: nn.Module, path: str, calls: Sequence[tuple[int, "_Call"]]) -> None:
        super().__init__()
        self.__dict__["_element"] = element
        self._path, self._waiting, self._turn = path, calls, 0

    def forward(self, *args: object, **kwargs: object) -> object:
        number, call = self._waiting[self._turn % len(self._waiting)]
        self._turn += 1
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        results = iter(torch.ops.moec_trace.layer(tensors, self._path, number))
        assert call.spec is not None
        return tree_unflatten([next(results) if isinstance(x, Tensor) else x for x in call.outputs], call.spec)

    def __getattr__(self, name: str):  # what the model asks of its element
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_element"], name)


class _stubs(AbstractContextManager[None]):
    """Every element of a module list is one operator."""

    def __init__(self, module: nn.Module, calls: Sequence[_Call]) -> None:
        self._module, self._calls = module, calls
        called = {call.path for call in calls}
        self._elements = [(path, element) for path, element in _elements(module) if path in called]

    def __enter__(self) -> None:
        _SHAPES[:] = [[x for x in call.outputs if isinstance(x, Tensor)] for call in self._calls]
        for path, element in self._elements:
            waiting = [(number, call) for number, call in enumerate(self._calls) if call.path == path]
            self._put(path, _Stub(element, path, waiting))

    def __exit__(self, *_: object) -> None:
        for path, element in self._elements:
            self._put(path, element)
        _SHAPES.clear()

    def _put(self, path: str, module: nn.Module) -> None:
        parent, _, name = path.rpartition(".")
        self._module.get_submodule(parent).add_module(name, module)


def _export(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> ExportedProgram:
    try:
        with warnings.catch_warnings():  # of its own use of torch
            warnings.simplefilter("ignore", FutureWarning)
            with on_meta():
                program = torch.export.export(module, args, dict(kwargs), strict=False)
            if any(_mutates(node) for node in program.graph.nodes):
                program = program.run_decompositions({})
        return program
    except (Exception, SystemExit) as error:
        raise untraceable(error) from error


def _unlike(args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[tuple[object, ...], Mapping[str, object]]:
    """The arguments with a tensor of its own for each: two that are one tensor in this call may not be in another."""
    return tree_map_only(Tensor, lambda x: x.detach().clone(), (args, kwargs))


def _mutates(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.is_mutable


def _examples(model: Model, sizing: int) -> tuple[Tensor, ...]:
    try:
        with torch.device("meta"):
            return tuple(torch.empty(given.sizes[sizing], dtype=given.dtype) for given in model.inputs)
    except RuntimeError as error:  # torch counts the bytes of a tensor in 64 bits
        raise untraceable(error) from error


def _shared_names(module: nn.Module) -> dict[str, str]:
    """Names of weights that are another weight, and that weight's first name."""
    first: dict[int, str] = {}
    shared = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if first.setdefault(id(parameter), name) != name:
            shared[name] = first[id(parameter)]
    return shared


# ---- Exports of one structure, at different sizes, become one graph.


def _merge(exports: Sequence[ExportedProgram], sizes: Sizes, prefix: str, shared: Mapping[str, str]) -> Graph:
    """One graph of all exports; `prefix` is the module path of what was exported."""
    graphs = [[node for node in export.graph.nodes if not _is_noise(node)] for export in exports]
    targets = [[str(node.target) for node in graph if node.op == "call_function"] for graph in graphs]
    if any(other != targets[0] for other in targets):
        raise plan_error(
            "E404", "the small arguments change which operators run", "choose `small` arguments of the same structure"
        )
    return _Merger(exports, sizes, prefix, shared).graph(list(zip(*graphs, strict=True)))


def _is_noise(node: Node) -> bool:
    return "_assert_tensor_metadata" in str(node.target) or "_guards_fn" in str(node.target)


@dataclass(slots=True)
class _Merger:
    """Walks the nodes of all exports in step."""

    exports: Sequence[ExportedProgram]
    sizes: Sizes
    prefix: str
    shared: Mapping[str, str]
    values: dict[str, Value] = field(default_factory=dict)
    renames: dict[str, str] = field(default_factory=dict)  # getitem nodes and copies -> values
    outputs: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of operators with several

    @property
    def export(self) -> ExportedProgram:
        return self.exports[0]

    def graph(self, pairs: Sequence[tuple[Node, ...]]) -> Graph:
        kinds = {spec.arg.name: spec for spec in self.export.graph_signature.input_specs}
        inputs: list[str] = []
        weights: dict[str, str] = {}
        ops: list[Op] = []
        results: tuple[str, ...] = ()
        if self.export.graph_signature.buffers_to_mutate:
            name = next(iter(self.export.graph_signature.buffers_to_mutate.values()))
            raise plan_error(
                "E406", f"the model writes its buffer `{name}` in its forward", "keep state out of the forward"
            )
        for nodes in pairs:
            first = nodes[0]
            match first.op:
                case "placeholder" if kinds[first.name].kind is InputKind.CONSTANT_TENSOR:
                    ops.append(self._constant(nodes, kinds[first.name]))
                case "placeholder":
                    self._placeholder(nodes, kinds[first.name], inputs, weights)
                case "call_function":
                    op = self._operator(nodes)
                    if op is not None:
                        ops.append(op)
                case "output":
                    listed = first.args[0] if isinstance(first.args[0], tuple | list) else ()
                    results = tuple(self._name(node) for node in listed if isinstance(node, Node))
                case _:
                    raise self._unplaced(first)
        self._label([nodes[0] for nodes in pairs if nodes[0].op == "call_function"], ops, inputs)
        self._name_results(ops)
        used = {name for op in ops for name in op.inputs} | set(results)
        return Graph(
            tuple(inputs), tuple((v, n) for v, n in weights.items() if v in used), tuple(ops), results, self.values
        )

    def _placeholder(
        self, nodes: tuple[Node, ...], spec: InputSpec, inputs: list[str], weights: dict[str, str]
    ) -> None:
        name = nodes[0].name
        if "val" not in nodes[0].meta or not isinstance(nodes[0].meta["val"], Tensor):
            return
        match spec.kind:
            case InputKind.PARAMETER | InputKind.BUFFER:
                assert spec.target is not None, "a parameter has a name"
                target = self.shared.get(f"{self.prefix}.{spec.target}" if self.prefix else spec.target, "")
                below = f"{self.prefix}." if self.prefix else ""
                if target and not target.startswith(below):
                    raise plan_error(
                        "E408", f"`{self.prefix}.{spec.target}` is the same weight as `{target}`, in another layer"
                    )
                own = target.removeprefix(below) if target else spec.target
                twin = next((value for value, known in weights.items() if known == own), None)
                if twin is not None:
                    self.renames[name] = twin
                    return
                weights[name] = own
                kind: Kind = "weight" if self._is_trained(spec) else "buffer"
                self._add(nodes, name, kind, spec.target)
            case InputKind.USER_INPUT:
                inputs.append(name)
                self._add(nodes, name, "activation", name)
            case _:
                raise plan_error("E407", f"torch.export gives `{spec.kind}`, which moec cannot place")

    def _constant(self, nodes: tuple[Node, ...], spec: InputSpec) -> Op:
        """A number that the model made a tensor of; raises PlanError for more than one."""
        held = [export.constants[str(spec.target)] for export in self.exports]
        place = [line for line in [self._place(nodes[0])] if line]
        if any(not isinstance(x, Tensor) or x.dim() for x in held):
            lifted = str(spec.target).rpartition(".")[2].startswith("lifted_tensor")
            what = (
                "makes a tensor of constants in its forward" if lifted else f"holds the constant tensor `{spec.target}`"
            )
            raise plan_error("E407", f"the model {what}", *place, "register it as a buffer")
        if any(isinstance(x, Tensor) and x.is_meta for x in held):
            headline = "the model has a constant tensor on the meta device, where its number is lost"
            raise plan_error("E407", headline, *place, "write the number itself, or register it as a buffer")
        self._add(nodes, nodes[0].name, "activation", "")
        number = self._argument(tuple(x.item() for x in held if isinstance(x, Tensor)), "number")
        kwargs = (("dtype", self.values[nodes[0].name].dtype),)
        return Op("aten.scalar_tensor", (number,), kwargs, (nodes[0].name,))

    def _unplaced(self, node: Node) -> PlanError:
        """What torch.export makes a graph of its own of, said as the model's source says it."""
        users = " ".join(str(user.target) for user in node.users)
        inner = dict(self.export.graph_module.named_modules()).get(str(node.target))
        lines = [self._place(part) for part in inner.graph.nodes] if isinstance(inner, GraphModule) else []
        place = [line for line in [*lines, self._place(node)] if line][:1]
        for sign, (what, help) in _BLOCKS.items():
            if sign in users:
                return plan_error("E407", f"the model uses {what} in its forward", *place, help)
        return plan_error(
            "E407", "the model has a part that moec cannot place", *place, "write it with plain operators"
        )

    def _is_trained(self, spec: InputSpec) -> bool:
        """Is it a parameter, and one that is not frozen?"""
        return spec.kind is InputKind.PARAMETER and self.export.state_dict[str(spec.target)].requires_grad

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
        names = _argument_names(first)
        args = tuple(
            self._argument(pair, names[place] if place < len(names) else "size")
            for place, pair in enumerate(zip(*(node.args for node in nodes), strict=True))
        )
        kwargs = tuple(
            (key, self._argument(tuple(node.kwargs[key] for node in nodes), key))
            for key in first.kwargs
            if key not in ("pin_memory", "layout", "device", "memory_format") and first.kwargs[key] is not None
        )
        if isinstance(first.meta["val"], list | tuple):
            count = len(first.meta["val"])
            outputs = tuple(f"{first.name}_{place}" for place in range(count))
            self.outputs[first.name] = outputs
            if target == "aten.broadcast_tensors":
                self.outputs[first.name] = self._broadcast(nodes, outputs)
                if not set(outputs) & set(self.outputs[first.name]):
                    return None
            for place, output in enumerate(outputs):
                vals = tuple(node.meta["val"][place] for node in nodes)
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
        made = list(outputs)
        for place in range(len(outputs)):
            given = [node.args[0][place] for node in nodes if isinstance(node.args[0], list | tuple)]
            tensors = [x for x in given if isinstance(x, Node)]
            if all(
                x.meta["val"].shape == node.meta["val"][place].shape for x, node in zip(tensors, nodes, strict=True)
            ):
                made[place] = self._name(tensors[0])
        return tuple(made)

    def _random(self, node: Node, target: str) -> PlanError:
        where = self._where(node)
        place = self._place(node) or f"in `{where.path}`"
        help = "take it out, or set its probability to 0: what is random would differ from mesh to mesh"
        return plan_error("E413", f"the model draws random numbers in its forward, with `{target}`", place, help)

    def _argument(self, values: tuple[object, ...], name: str) -> Argument:
        first = values[0]
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
        self.values[name] = self._value(name, tuple(node.meta["val"] for node in nodes), kind, label)

    def _value(self, name: str, vals: tuple[Tensor, ...], kind: Kind, label: str) -> Value:
        shape: tuple[Expr, ...] = tuple(self.sizes.express(pair) for pair in zip(*(v.shape for v in vals), strict=True))
        return whole(name, shape, vals[0].dtype, kind, label)

    def _place(self, node: Node) -> str:
        """The line of the model that made a node, or that first reads it; empty if none is known."""
        for at in (node, *node.users, *(later for user in node.users for later in user.users)):
            where = self._where(at)
            if where.file:
                return f"{where.file}:{where.line}: {where.code}"
        return ""

    def _where(self, node: Node) -> Where:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path = str(stack[-1][0]) if stack else ""
        chain = self._frames(node)
        at = chain[-1] if chain else Frame("", 0, "", "")
        return Where(path, at.file, at.line, at.code)

    def _frames(self, node: Node) -> tuple[Frame, ...]:
        return tuple(f for f in frames_of(node.meta.get("stack_trace") or "") if not f.file.startswith(_BETWEEN))

    def _label(self, nodes: list[Node], ops: Sequence[Op], inputs: Sequence[str]) -> None:
        """Give values the names that the model's source has for them."""
        chains = [self._frames(node) for node in nodes]
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


_BLOCKS = {
    "set_grad_enabled": ("`torch.no_grad()` or its like", "write `x.detach()` for what needs no gradient"),
    "autocast": ("`torch.autocast`", "take it out: the plan's `precision` says the type, and `x.float()` casts"),
    "cond": ("`torch.cond`", "write `torch.where`, which computes both sides"),
}
"""Parts of a forward that torch.export makes a graph of its own of, by the operator that runs it."""

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


def _argument_names(node: Node) -> tuple[str, ...]:
    schema = getattr(node.target, "_schema", None)
    return tuple(argument.name for argument in schema.arguments) if schema is not None else ()

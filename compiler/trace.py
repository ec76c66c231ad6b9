"""Traces the model: its lists of equal modules once a kind, and what stands around them as units of its own.

One forward on the meta device hashes the operators of the elements of module lists, but for those that are like one
before them in every attribute and weight; elements of one hash are one kind. A kind is recorded once for each of the
sizings, and the model itself with a single node in place of every element (record.py). The records together give one
graph (merge.py).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from types import BuiltinFunctionType, FunctionType, ModuleType

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

from moec.compiler.merge import merge
from moec.compiler.model import Model
from moec.compiler.on_meta import on_meta
from moec.compiler.program import Graph
from moec.compiler.record import record
from moec.compiler.sizes import Sizes
from moec.compiler.unique import unique
from moec.compiler.untraceable import untraceable
from moec.dsl.diagnostics import plan_error
from moec.runtime.dispatch_mode import DispatchMode, tensors_of


@dataclass(frozen=True, slots=True)
class Traced:
    """The graph of the whole model, in which elements of module lists are single operators, and a graph a kind."""

    root: Graph
    kinds: Mapping[str, Graph]
    kind_of: Mapping[str, str]  # path of an element -> its kind
    sizes: Sizes
    shared: Mapping[str, str]  # weights with several names: name -> the first


def trace(model: Model) -> Traced:
    """Graphs of the model and of each of its kinds; raises PlanError where their forwards are no graphs."""
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
            _check_lasting(model.modules[0].get_submodule(path), calls[0])
            recorded = [
                record(module.get_submodule(path), *_unlike(call.args, call.kwargs))
                for module, call in zip(model.modules, calls, strict=True)
            ]
            kinds[kind_of[path]] = merge(recorded, sizes, path, shared)
    roots = []
    for sizing, module in enumerate(model.modules):
        with _stubs(module, records[sizing]):
            roots.append(record(module, _examples(model, sizing), {}))
    return Traced(merge(roots, sizes, "", shared), kinds, kind_of, sizes, shared)


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


class _Hash(DispatchMode):
    """Hashes operators with shapes, constants, the names of the element's own parameters, and what reads what."""

    def __init__(self, element: nn.Module, given: Sequence[Tensor]) -> None:
        super().__init__()
        self.digest = hashlib.blake2b(digest_size=16)
        self._names = {id(p): name for name, p in (*element.named_parameters(), *element.named_buffers())}
        self._numbers: dict[int, int] = {}  # of all other tensors, as they come
        self._alive: list[Tensor] = []
        self.note(given)

    def note(self, tensors: Sequence[Tensor]) -> None:
        self.digest.update(f"{[self._describe(x) for x in tensors]}\n".encode())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        described = tree_map_only(Tensor, self._describe, (args, kwargs or {}))
        self.digest.update(f"{func} {described}\n".encode())
        result = func(*args, **(kwargs or {}))
        self.note(tensors_of(result))
        return result

    def _describe(self, x: Tensor) -> str:
        if id(x) in self._names:
            return f"{self._names[id(x)]}{'' if x.requires_grad else 'frozen'}{tuple(x.shape)}{x.dtype}"
        if id(x) not in self._numbers:
            self._numbers[id(x)] = len(self._numbers)
            self._alive.append(x)
        return f"{self._numbers[id(x)]}{tuple(x.shape)}{x.dtype}"


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
        def recorded(*args: object, **kwargs: object) -> object:
            likeness = alike.get(path) or _likeness(element, args, kwargs)
            twin = known.get(likeness)
            if twin is not None and twin.spec is not None:
                calls.append(_Call(path, args, kwargs, twin.hash, twin.outputs, twin.spec))
                return tree_unflatten(twin.outputs, twin.spec)
            result, call = _run(path, element, forward, args, kwargs)
            call.hash = alike.get(path) or call.hash
            known[likeness] = call
            calls.append(known[likeness])
            return result

        return recorded

    with ExitStack() as stack:
        for path, element in _elements(module):
            _refuse_hooks(path, element)
            stack.enter_context(_forward_as(element, recorder(path, element, element.forward)))
        try:
            with on_meta():
                result = module(*inputs)
        except (Exception, SystemExit) as error:
            raise untraceable(error) from error
    _check_result(result)
    return calls


def _run(
    path: str,
    element: nn.Module,
    forward: Callable[..., object],
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
) -> tuple[object, _Call]:
    """What an element gives, and its call with the hash of what it does."""
    with _Hash(element, tensors_of((args, kwargs))) as mode:
        result = forward(*args, **kwargs)
    outputs, spec = tree_flatten(result)
    mode.note(tensors_of(outputs))
    layout = f"{[x for x in tree_flatten((args, kwargs))[0] if not isinstance(x, Tensor)]}{spec}"
    mode.digest.update(f"{type(element).__qualname__}{layout}".encode())
    return result, _Call(path, args, kwargs, mode.digest.hexdigest(), outputs, spec)


def _check_lasting(element: nn.Module, call: _Call) -> None:
    """Raise PlanError if an element does something else by now than it did: what it is given, or has, has changed."""
    with on_meta():
        again = _run(call.path, element, element.forward, call.args, call.kwargs)[1]
    if again.hash != call.hash:
        headline = f"what `{call.path}` is given, or holds, changes after it has run"
        raise plan_error("E406", headline, "pass numbers and tensors, and keep state out of the forward")


def _refuse_hooks(path: str, element: nn.Module) -> None:
    """Raise PlanError for hooks of an element, or on gradients of its weights: its operators do not show them."""
    hooks = (element._forward_hooks, element._forward_pre_hooks, element._backward_hooks, element._backward_pre_hooks)
    if any(hooks) or any(weight._backward_hooks for weight in element.parameters()):
        raise plan_error("E407", f"`{path}` has a hook", "write what it does in the forward")


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
    """What an element and its call are made of: equal for two only if their operators are.

    What is unknown differs, even from itself: it may have changed since.
    """
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
        case int() | float() | str() | None | torch.dtype() | torch.device() | torch.Size() | Enum():
            return repr(value)
        case FunctionType() | BuiltinFunctionType() | ModuleType() | type():
            return f"{type(value).__name__} {id(value)}"
        case _:
            return f"{type(value).__name__} {next(_UNLIKE)}"


_UNLIKE = count()


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


# ---- One operator in place of an element.

_LIBRARY = torch.library.Library("moec_trace", "DEF")
_LIBRARY.define("layer(Tensor[] inputs, str path, int call) -> Tensor[]")
_SHAPES: list[list[Tensor]] = []
"""What the calls of elements give, while a model is recorded: the operator's shape function cannot know otherwise."""


@torch.library.register_fake("moec_trace::layer", lib=_LIBRARY)
def _layer_shapes(inputs: list[Tensor], path: str, call: int) -> list[Tensor]:
    return [inputs[0].new_empty(x.shape, dtype=x.dtype) for x in _SHAPES[call]]


class _Stub(nn.Module):
    """Stands for an element: one operator, and no weights of its own. Attributes are its."""

    def __init__(self, element: nn.Module, path: str, calls: Sequence[tuple[int, "_Call"]]) -> None:
        super().__init__()
        self.__dict__["_element"] = element
        self._path, self._waiting, self._turn = path, calls, 0

    def forward(self, *args: object, **kwargs: object) -> object:
        number, call = self._waiting[self._turn % len(self._waiting)]
        self._turn += 1
        tensors = tensors_of((args, kwargs))
        if sum(isinstance(x, Tensor) for x in call.outputs) > 1:  # of which a loop of layers would make one name
            tensors = [x.clone() if any(x is other for other in tensors[:n]) else x for n, x in enumerate(tensors)]
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


def _unlike(args: tuple[object, ...], kwargs: Mapping[str, object]) -> tuple[tuple[object, ...], Mapping[str, object]]:
    """The arguments with a tensor of its own for each: two that are one tensor in this call may not be in another."""
    return tree_map_only(Tensor, lambda x: x.detach().clone(), (args, kwargs))


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

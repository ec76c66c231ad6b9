"""Records the operators of a forward as a torch.fx graph, as the model calls them: above autograd, not decomposed.

They are those that torch.export sees without `strict`. What it does besides (guards, fake tensors, an import of
torch.compile) is not needed where the model is on the meta device, and takes ten times as long. It is asked only where
an operator writes to a tensor (functional.py).
"""

import inspect
import linecache
import operator
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher, no_python_dispatcher
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from moec.compiler.functional import record_functional
from moec.compiler.on_meta import on_meta
from moec.compiler.recorded import Given, Recorded, note, writes
from moec.compiler.source_names import Frame
from moec.compiler.untraceable import untraceable
from moec.dsl.diagnostics import PlanError, plan_error
from moec.runtime.dispatch_mode import DispatchMode, tensors_of

_TORCH = str(Path(torch.__file__).parent)


def record(module: nn.Module, args: Sequence[object], kwargs: Mapping[str, object]) -> Recorded:
    """What a module's forward does with these arguments, on the meta device; raises PlanError if that is no graph."""
    try:
        with on_meta(), _exporting():
            recorded = _record(module, args, kwargs)
            return record_functional(module, args, kwargs) if any(map(writes, recorded.nodes)) else recorded
    except PlanError:
        raise
    except (Exception, SystemExit) as error:
        raise untraceable(error) from error


def _record(module: nn.Module, args: Sequence[object], kwargs: Mapping[str, object]) -> Recorded:
    recording = _Recording(module)
    for name, x in module.named_parameters(remove_duplicate=False):
        recording.give(f"p_{_word(name)}", x, Given("weight" if x.requires_grad else "buffer", name))
    for name, x in module.named_buffers(remove_duplicate=False):
        recording.give(f"b_{_word(name)}", x, Given("buffer", name))
    for name, x in _named_inputs(module, args, kwargs):
        recording.give(name, x, Given("input", name))
    with _keeping_nothing(module, (args, kwargs)), recording.running():
        result = module(*args, **kwargs)
    return recording.recorded(tensors_of(result))


class _Recording(DispatchMode, ProxyTorchDispatchMode):
    """Sees operators before autograd does, where torch lets in no mode but those of make_fx and a few others."""

    def __init__(self, module: nn.Module) -> None:
        TorchDispatchMode.__init__(self, torch._C.DispatchKey.PreDispatch)
        self._mode_key = torch._C._TorchDispatchModeKey.PROXY
        self._graph = Graph()
        self._given: dict[str, Given] = {}
        self._node_of = WeakTensorKeyDictionary()  # weak: a result that is held elsewhere is copied by torch
        self._path_of = {id(part): path for path, part in module.named_modules()}
        self._paths: list[str] = []  # of the modules that run, outermost first
        self._attributes = {
            id(value): f"{path}.{name}".lstrip(".")
            for path, part in module.named_modules()
            for name, value in vars(part).items()
            if isinstance(value, Tensor)
        }

    def __enter__(self) -> Self:
        TorchDispatchMode.__enter__(self)
        return self

    def __exit__(self, *raised: Any) -> None:
        TorchDispatchMode.__exit__(self, *raised)

    @contextmanager
    def running(self) -> Iterator[None]:
        def enter(part: nn.Module, _: object) -> None:
            self._paths.append(self._path_of.get(id(part), ""))

        def leave(*_: object) -> None:
            self._paths.pop()

        with ExitStack() as stack:
            stack.callback(register_module_forward_pre_hook(enter).remove)
            stack.callback(register_module_forward_hook(leave, always_call=True).remove)
            stack.enter_context(enable_python_dispatcher())
            stack.enter_context(self)
            yield

    def give(self, name: str, x: Tensor, given: Given) -> None:
        """A placeholder for a tensor that no operator makes."""
        node = self._graph.create_node("placeholder", name, name=name)
        self._note(node, x, _frames() if given.kind == "constant" else ())
        self._given[node.name] = given
        self._node_of[x] = node

    def recorded(self, results: Sequence[Tensor]) -> Recorded:
        output = self._graph.output(tuple(self._node(x) for x in results))
        self._note(output, None, ())
        if not any(map(writes, self._graph.nodes)):
            self._graph.eliminate_dead_code(lambda node: node.op != "call_function")
        return Recorded(tuple(self._graph.nodes), self._given)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        frames = _frames()
        _refuse_unseen(frames)
        nodes = tree_map_only(Tensor, self._node, (args, kwargs or {}))
        with no_python_dispatcher():  # whose nll_loss gives a scalar, whatever the reduction
            result = func(*args, **(kwargs or {}))
        if not tensors_of(result) and not func._schema.is_mutable:  # an assertion
            return result
        node = self._graph.create_node("call_function", func, *nodes, name=func.overloadpacket.__name__)
        self._note(node, result, frames)
        if isinstance(result, Tensor):
            self._node_of[result] = node
        for place, x in enumerate(result if isinstance(result, tuple | list) else ()):
            if isinstance(x, Tensor):
                self._node_of[x] = self._graph.create_node("call_function", operator.getitem, (node, place))
                self._note(self._node_of[x], x, frames)
        return result

    def _node(self, x: Tensor) -> Node:
        if x._backward_hooks:
            headline = "the model has a hook on a gradient"
            raise plan_error(
                "E407", headline, *(at.shown for at in _frames()[-1:]), "write what it does in the forward"
            )
        if x not in self._node_of:
            name = self._attributes.get(id(x), "")
            self.give(f"c_{_word(name) or 'number'}", x, Given("constant", name, x))
        return self._node_of[x]

    def _note(self, node: Node, result: object, frames: tuple[Frame, ...]) -> None:
        note(node, result, self._paths[-1] if self._paths else "", frames)


@contextmanager
def _exporting() -> Iterator[None]:
    """What torch.compiler.is_exporting() tells a model."""
    state = torch.compiler
    before = state._is_compiling_flag, state._is_exporting_flag
    state._is_compiling_flag = state._is_exporting_flag = True
    try:
        yield
    finally:
        state._is_compiling_flag, state._is_exporting_flag = before


@contextmanager
def _keeping_nothing(module: nn.Module, arguments: object) -> Iterator[None]:
    """Raises PlanError for a tensor that a forward leaves in one of its modules, or in what it is given.

    Attributes are put back as they were.
    """
    before = [(path, part, dict(vars(part)), dict(part._buffers)) for path, part in module.named_modules()]
    held = dict(_held(before, arguments))
    try:
        yield
        for name, tensors in _held([(path, part, vars(part), part._buffers) for path, part, *_ in before], arguments):
            known = {id(x) for x in held.get(name, ())}
            if any(id(x) not in known for x in tensors):
                what = f"writes `{name}`" if name else "adds a tensor to an argument"
                raise plan_error("E406", f"the model {what} in its forward", "return it instead")
    finally:
        for _, part, attributes, buffers in before:
            part.__dict__ = attributes
            part._buffers.clear()
            part._buffers.update(buffers)


def _held(
    parts: Sequence[tuple[str, nn.Module, Mapping[str, object], Mapping[str, object]]], arguments: object
) -> list[tuple[str, list[Tensor]]]:
    """The tensors that attributes, lists and dicts in them, and arguments (under no name) hold."""
    found = [
        (f"{path}.{name}".lstrip("."), tensors_of(value))
        for path, _, attributes, buffers in parts
        for name, value in (*attributes.items(), *buffers.items())
        if name not in ("_buffers", "_modules")
    ]
    return [*found, ("", tensors_of(arguments))]


def _frames() -> tuple[Frame, ...]:
    """The lines of forwards that run now, outermost first."""
    found = []
    at = sys._getframe(1)
    while at is not None and at.f_code is not _record.__code__:
        file = at.f_code.co_filename
        if at.f_code.co_name == "forward" and not file.startswith(_TORCH):
            found.append(Frame(file, at.f_lineno, "forward", linecache.getline(file, at.f_lineno).strip()))
        at = at.f_back
    return tuple(reversed(found))


def _refuse_unseen(frames: tuple[Frame, ...]) -> None:
    """Raise PlanError under a mode that an operator does not show, and that a program would lack."""
    place = [at.shown for at in frames[-1:]]
    if not torch.is_grad_enabled():
        headline = "the model uses `torch.no_grad()`, its like or a torch.autograd.Function in its forward"
        help = "write `x.detach()` for what needs no gradient, `use_reentrant=False` for a checkpoint"
        raise plan_error("E407", headline, *place, help)
    if any(map(torch.is_autocast_enabled, ("cpu", "cuda"))):
        headline = "the model uses `torch.autocast` in its forward"
        help = "take it out: the plan's `precision` says the type, and `x.float()` casts"
        raise plan_error("E407", headline, *place, help)


def _named_inputs(
    module: nn.Module, args: Sequence[object], kwargs: Mapping[str, object]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors among the arguments, in order, by the names that the forward's parameters have."""
    parameters = inspect.signature(module.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "args")
    names += [f"{rest}_{n}" for n in range(len(args) - len(names))]
    for tree, name in (*zip(args, names, strict=False), *((tree, name) for name, tree in kwargs.items())):
        for path, x in tree_flatten_with_path(tree)[0]:
            if isinstance(x, Tensor):
                yield _word(f"{name}{keystr(path)}"), x


def _word(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")

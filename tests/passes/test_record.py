"""What is recorded of a forward is what torch.export sees of it, operator by operator."""

import inspect

import odd_modules
import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

from moec.compiler.on_meta import on_meta
from moec.compiler.record import record
from moec.compiler.recorded import made, path_of, several, writes
from moec.dsl import PlanError

OTHERWISE = {"FromNumPy", "Hooked", "BatchStatistics", "Constant", "Lifted", "Reassigned", "Recurrent", "Written"}
"""Those that write to a tensor, which torch.export is asked for itself, and those that hold constants."""

ODD = sorted(
    name
    for name, kind in vars(odd_modules).items()
    if isinstance(kind, type)
    and issubclass(kind, nn.Module)
    and "label" in inspect.signature(kind.forward).parameters
    and name not in OTHERWISE
)


def build(name: str) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    with torch.device("meta"):
        module = getattr(odd_modules, name)(8, 12, 3, 4).to(torch.bfloat16)
        return module, (torch.empty(6, 4, 8, dtype=torch.bfloat16), torch.empty(6, dtype=torch.int64))


def said(nodes: list[Node]) -> list[tuple[object, ...]]:
    """Each operator with its arguments, those that are a schema's defaults left out; values by their place."""
    place = {node.name: n for n, node in enumerate(nodes)}

    def shown(value: object) -> object:
        if isinstance(value, Node):
            return f"%{place[value.name]}"
        return [shown(x) for x in value] if isinstance(value, list | tuple) else value

    found: list[tuple[object, ...]] = []
    for node in nodes:
        given = {str(n): x for n, x in enumerate(node.args)}
        schema = getattr(node.target, "_schema", None)
        if schema is not None:
            names = [argument.name for argument in schema.arguments]
            given = dict(zip(names, node.args, strict=False)) | node.kwargs
            for argument in schema.arguments:
                if argument.has_default_value() and given.get(argument.name) == argument.default_value:
                    given.pop(argument.name, None)
            for name in ("pin_memory", "cudnn_enable", "cudnn_enabled"):  # no rule reads them
                given.pop(name, None)
        target = "" if node.op == "placeholder" else str(node.target)
        found.append((node.op, target, {name: shown(x) for name, x in given.items()}))
    return found


@pytest.mark.parametrize("name", ODD)
def test_as_torch_export_sees_it(name: str) -> None:
    module, inputs = build(name)
    try:
        recorded = record(module, inputs, {})
    except PlanError as refusal:
        pytest.skip(f"refused: {refusal}")
    assert not any(map(writes, recorded.nodes))
    module, inputs = build(name)
    with on_meta():
        exported = torch.export.export(module, inputs, strict=False)
    theirs = [node for node in exported.graph.nodes if "_assert_tensor_metadata" not in str(node.target)]
    assert said(list(recorded.nodes)) == said(theirs)
    for mine, its in zip(recorded.nodes, theirs, strict=True):
        if mine.op == "call_function":
            val = its.meta["val"]
            shapes = [x.shape for x in several(mine) or [made(mine)]]
            assert shapes == [x.shape for x in (val if isinstance(val, tuple | list) else [val])]
            assert path_of(mine) == [*its.meta["nn_module_stack"].values()][-1][0]


@pytest.mark.parametrize("name", ["Written", "Reassigned"])
def test_writes_nothing(name: str) -> None:
    module, inputs = build(name)
    assert not any(map(writes, record(module, inputs, {}).nodes))


class Kept(odd_modules.Plain):
    """Leaves a tensor in itself."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        self.last = self.stem(x)
        return super().forward(x, label)


class Autocast(odd_modules.Plain):
    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(x, label)


class Double(torch.autograd.Function):
    """Has a gradient of its own, which no operator shows."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient


class OwnGradient(odd_modules.Plain):
    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return super().forward(Double.apply(x), label)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Kept, "writes `last`"),
        (Autocast, "`torch.autocast`"),
        (OwnGradient, "torch.autograd.Function"),
        (odd_modules.WithoutGradient, "`torch.no_grad()`"),
        (odd_modules.Counter, "writes its buffer"),
    ],
)
def test_refused(kind: type[nn.Module], said: str) -> None:
    with torch.device("meta"):
        module = kind(8, 12, 3, 4).to(torch.bfloat16)
        inputs = torch.empty(6, 4, 8, dtype=torch.bfloat16), torch.empty(6, dtype=torch.int64)
    before = vars(module).copy()
    with pytest.raises(PlanError, match="E40") as refused:
        record(module, inputs, {})
    [diagnostic] = refused.value.diagnostics
    assert said in diagnostic.headline and diagnostic.help
    assert diagnostic.code == "E406" or __file__ in diagnostic.help[0] or odd_modules.__file__ in diagnostic.help[0]
    assert vars(module) == before

"""Records a forward that writes to tensors: torch.export makes of every write a new value, seen through all views."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind
from torch.fx import Node

from moec.compiler.recorded import Given, Recorded, note, place_of
from moec.compiler.source_names import Frame, frames_of
from moec.dsl.diagnostics import plan_error

_BETWEEN = (str(Path(torch.__file__).parent), str(Path(__file__).with_name("on_meta.py")))
"""Where frames are that lie between the model's code and an operator."""

_WRITTEN = {
    OutputKind.BUFFER_MUTATION: "buffer",
    OutputKind.PARAMETER_MUTATION: "weight",
    OutputKind.USER_INPUT_MUTATION: "argument",
}


def record_functional(module: nn.Module, args: Sequence[object], kwargs: Mapping[str, object]) -> Recorded:
    """The operators of a forward without any that writes; raises PlanError if a buffer is written."""
    with warnings.catch_warnings():  # of its own use of torch
        warnings.simplefilter("ignore", FutureWarning)
        exported = torch.export.export(module, tuple(args), dict(kwargs), strict=False).run_decompositions({})
    for spec in exported.graph_signature.output_specs:
        if spec.kind in _WRITTEN:
            headline = f"the model writes its {_WRITTEN[spec.kind]} `{spec.target}` in its forward"
            raise plan_error("E406", headline, "make a new tensor, and keep state out of the forward")
    nodes = tuple(node for node in exported.graph.nodes if not _is_noise(node))
    for node in nodes:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        note(node, node.meta.get("val"), str(stack[-1][0]) if stack else "", _frames(node))
    for node in nodes:
        if node.op not in ("placeholder", "call_function", "output"):
            headline = "the model has a part that moec cannot place"
            raise plan_error("E407", headline, *place_of(node), "write it with plain operators")
    specs = exported.graph_signature.input_specs
    return Recorded(nodes, {spec.arg.name: _given(exported, spec) for spec in specs})


def _given(exported: ExportedProgram, spec: InputSpec) -> Given:
    target = str(spec.target)
    match spec.kind:
        case InputKind.PARAMETER:
            return Given("weight" if exported.state_dict[target].requires_grad else "buffer", target)
        case InputKind.BUFFER:
            return Given("buffer", target)
        case InputKind.USER_INPUT:
            return Given("input", spec.arg.name)
        case InputKind.CONSTANT_TENSOR:
            lifted = target.rpartition(".")[2].startswith("lifted_tensor")
            return Given("constant", "" if lifted else target, exported.constants[target])
        case _:
            raise plan_error("E407", f"torch.export gives `{spec.kind}`, which moec cannot place")


def _frames(node: Node) -> tuple[Frame, ...]:
    return tuple(f for f in frames_of(node.meta.get("stack_trace") or "") if not f.file.startswith(_BETWEEN))


def _is_noise(node: Node) -> bool:
    return "_assert_tensor_metadata" in str(node.target) or "_guards_fn" in str(node.target)

"""The tape of one micro-batch: which regions ran, so that each can be differentiated by itself, last first.

A region is a plain function. `run` cuts it out of any larger graph: its activations become leaves, its results are
handed out detached. `back` runs autograd inside that one region. Weights' gradients add up in their `.grad`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import Parameter

# What torch.autograd.grad calls. The detour through it costs as much as a small region, and imports sympy.
_run_backward = Variable._execution_engine.run_backward


Region = Callable[..., object]

_Entry = tuple[
    Region,
    list[Tensor],  # the activations that carry a gradient, as leaves
    list[Parameter],  # the weights that are trained, each once
    list[GradientEdge],  # of the results that carry a gradient; not the tensors, which may be freed
]


@dataclass(frozen=True, slots=True)
class _Kept:
    values: tuple[object, ...]


class Tape:
    """A stack of regions that ran and of values kept for the backward.

    `run` and `back` stand between any two regions of a step, so they do no more than they must.
    """

    __slots__ = ("_stack",)

    def __init__(self) -> None:
        self._stack: list[_Entry | _Kept] = []

    @overload
    def run(self, region: Callable[..., Tensor], *args: object) -> Tensor: ...
    @overload
    def run(self, region: Callable[..., tuple[Tensor, ...]], *args: object) -> tuple[Tensor, ...]: ...
    @overload
    def run(self, region: Region, *args: object) -> object: ...
    def run(self, region: Region, *args: object) -> object:
        """The region's result, a tensor or a tuple of tensors, detached; requires_grad says what carries a gradient."""
        inputs: list[Tensor] = []
        weights: list[Parameter] = []
        passed = []
        for x in args:
            if isinstance(x, Tensor) and x.requires_grad:
                if type(x) is not Parameter:
                    x = x.detach().requires_grad_()
                    inputs.append(x)
                elif not _holds(weights, x):
                    weights.append(x)
            passed.append(x)
        result = region(*passed)
        if isinstance(result, Tensor):
            if result.requires_grad:
                self._stack.append((region, inputs, weights, [_edge(result)]))
                return result.detach().requires_grad_()
            self._stack.append((region, inputs, weights, []))
            return result
        assert isinstance(result, tuple), f"region `{_name(region)}` returns {type(result).__name__}, not tensors"
        self._stack.append((region, inputs, weights, [_edge(x) for x in result if x.requires_grad]))
        return tuple([x.detach().requires_grad_() if x.requires_grad else x for x in result])

    def back(self, region: Region, *gradients: Tensor | None) -> Tensor | tuple[Tensor, ...] | None:
        """Gradients of the results that carry one, in order -> those of the activations that do, in order.

        None stands for zeros. One activation: its gradient; several: a tuple; none: None.
        """
        entry = self._stack.pop() if self._stack else None
        if type(entry) is not tuple or entry[0] is not region:
            raise RuntimeError(f"backward of region `{_name(region)}`, but {_what(entry)}")
        _, inputs, weights, outputs = entry
        if len(gradients) != len(outputs):
            raise RuntimeError(
                f"region `{_name(region)}` has {len(outputs)} results that carry a gradient, "
                f"but {len(gradients)} gradients were given"
            )
        found = _gradients(outputs, gradients, inputs, weights)
        if len(inputs) == 1:
            return torch.zeros_like(inputs[0]) if found[0] is None else found[0]
        pairs = zip(inputs, found, strict=True)
        return tuple([torch.zeros_like(x) if gradient is None else gradient for x, gradient in pairs]) or None

    def keep(self, *values: object) -> None:
        """Put values by for the backward, in one order with the regions."""
        self._stack.append(_Kept(values))

    def kept(self) -> object:
        """The values last kept: the value itself if it was one, else a tuple."""
        entry = self._stack.pop() if self._stack else None
        if not isinstance(entry, _Kept):
            raise RuntimeError(f"the backward asks for kept values, but {_what(entry)}")
        return entry.values[0] if len(entry.values) == 1 else entry.values

    def done(self) -> None:
        """Every region that ran has run backward."""
        assert not self._stack, f"{len(self._stack)} regions did not run backward, and {_what(self._stack[-1])}"


def accumulate(weight: Tensor, gradient: Tensor) -> None:
    """Add to a weight's gradient; also what came out of a region as the gradient of a gathered or a partial weight."""
    assert weight.grad is not None, "the weight has no gradient to add to"
    weight.grad.add_(gradient)


def _gradients(
    outputs: Sequence[GradientEdge],
    gradients: tuple[Tensor | None, ...],
    inputs: Sequence[Tensor],
    weights: Sequence[Parameter],
) -> Sequence[Tensor | None]:
    """Gradients of the inputs; those of the weights are added to theirs, each while it is in the cache.

    Without weights they are taken as torch.autograd.grad does, which does not copy one that several inputs share.
    """
    if not all([gradient is not None for gradient in gradients]):
        given = [(edge, gradient) for edge, gradient in zip(outputs, gradients, strict=True) if gradient is not None]
        outputs, gradients = [edge for edge, _ in given], tuple([gradient for _, gradient in given])
    if not outputs or not (inputs or weights):
        return [None] * len(inputs)
    leaves = () if weights else tuple(inputs)
    add = bool(weights)
    found = _run_backward(tuple(outputs), gradients, False, False, leaves, allow_unreachable=True, accumulate_grad=add)
    return [x.grad for x in inputs] if add else found


def _edge(x: Tensor) -> GradientEdge:
    """Where the gradient of x enters its graph."""
    node = x.grad_fn
    return get_gradient_edge(x) if node is None else GradientEdge(node, x.output_nr)


def _holds(weights: list[Parameter], weight: Parameter) -> bool:
    """Tensors have no equality that would do for `in`."""
    return any(weight is other for other in weights) if weights else False


def _name(region: Region) -> str:
    return region.__name__ if hasattr(region, "__name__") else repr(region)


def _what(entry: _Entry | _Kept | None) -> str:
    """What the tape has last."""
    if entry is None:
        return "nothing is left on the tape"
    if isinstance(entry, _Kept):
        return f"keep of {len(entry.values)} values was the last to run"
    return f"region `{_name(entry[0])}` was the last to run"

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


@dataclass(slots=True)
class _Entry:
    region: Callable[..., object]
    inputs: list[Tensor]  # the activations that carry a gradient, as leaves
    weights: list[Parameter]  # those that are trained, each once
    outputs: list[GradientEdge]  # the results that carry a gradient; not the tensors, which may be freed


@dataclass(slots=True)
class _Kept:
    values: tuple[object, ...]


class Tape:
    """A stack of regions that ran and of values kept for the backward."""

    __slots__ = ("_stack",)

    def __init__(self) -> None:
        self._stack: list[_Entry | _Kept] = []

    @overload
    def run(self, region: Callable[..., Tensor], *args: object) -> Tensor: ...
    @overload
    def run(self, region: Callable[..., tuple[Tensor, ...]], *args: object) -> tuple[Tensor, ...]: ...
    def run(self, region: Callable[..., object], *args: object) -> object:
        """The region's result, a tensor or a tuple of tensors, detached; requires_grad says what carries a gradient."""
        inputs, weights, passed = [], [], []
        for x in args:
            if isinstance(x, Tensor) and x.requires_grad:
                if type(x) is not Parameter:
                    x = x.detach().requires_grad_()
                    inputs.append(x)
                elif not any(x is other for other in weights):
                    weights.append(x)
            passed.append(x)
        result = region(*passed)
        if isinstance(result, Tensor):
            self._stack.append(_Entry(region, inputs, weights, [_edge(result)] if result.requires_grad else []))
            return _detached(result)
        assert isinstance(result, tuple), f"region `{_name(region)}` returns {type(result).__name__}, not tensors"
        self._stack.append(_Entry(region, inputs, weights, [_edge(x) for x in result if x.requires_grad]))
        return tuple([_detached(x) for x in result])

    def back(self, region: Callable[..., object], *gradients: Tensor | None) -> Tensor | tuple[Tensor, ...] | None:
        """Gradients of the results that carry one, in order -> those of the activations that do, in order.

        None stands for zeros. One activation: its gradient; several: a tuple; none: None.
        """
        entry = self._pop(_name(region))
        if not isinstance(entry, _Entry) or entry.region is not region:
            raise RuntimeError(f"backward of region `{_name(region)}`, but {_what(entry)} was the last to run")
        if len(gradients) != len(entry.outputs):
            raise RuntimeError(
                f"region `{_name(region)}` has {len(entry.outputs)} results that carry a gradient, "
                f"but {len(gradients)} gradients were given"
            )
        roots = tuple([edge for edge, g in zip(entry.outputs, gradients, strict=True) if g is not None])
        seeds = tuple([g for g in gradients if g is not None])
        found = _gradients(roots, seeds, (*entry.inputs, *entry.weights))
        count = len(entry.inputs)
        for weight, gradient in zip(entry.weights, found[count:], strict=True):
            if gradient is not None:
                accumulate(weight, gradient)
        pairs = zip(entry.inputs, found[:count], strict=True)
        of_inputs = tuple([torch.zeros_like(x) if gradient is None else gradient for x, gradient in pairs])
        return of_inputs[0] if count == 1 else of_inputs or None

    def keep(self, *values: object) -> None:
        """Put values by for the backward, in one order with the regions."""
        self._stack.append(_Kept(values))

    def kept(self) -> object:
        """The values last kept: the value itself if it was one, else a tuple."""
        entry = self._pop("kept values")
        if not isinstance(entry, _Kept):
            raise RuntimeError(f"the backward asks for kept values, but {_what(entry)} was the last to run")
        return entry.values[0] if len(entry.values) == 1 else entry.values

    def done(self) -> None:
        """Every region that ran has run backward."""
        assert not self._stack, f"{len(self._stack)} regions did not run backward, the last {_what(self._stack[-1])}"

    def _pop(self, wanted: str) -> _Entry | _Kept:
        if not self._stack:
            raise RuntimeError(f"backward of {wanted}, but nothing is left on the tape")
        return self._stack.pop()


def accumulate(weight: Tensor, gradient: Tensor) -> None:
    """Add to a weight's gradient; also what came out of a region as the gradient of a gathered or a partial weight."""
    assert weight.grad is not None, "the weight has no gradient to add to"
    weight.grad.add_(gradient)


def _gradients(
    roots: tuple[GradientEdge, ...], seeds: tuple[Tensor, ...], inputs: tuple[Tensor, ...]
) -> Sequence[Tensor | None]:
    """As torch.autograd.grad gives them: they are not copied into leaves' own."""
    if not roots or not inputs:
        return [None] * len(inputs)
    return _run_backward(roots, seeds, False, False, inputs, allow_unreachable=True, accumulate_grad=False)


def _edge(x: Tensor) -> GradientEdge:
    """Where the gradient of x enters its graph."""
    return get_gradient_edge(x) if x.grad_fn is None else GradientEdge(x.grad_fn, x.output_nr)


def _detached(x: Tensor) -> Tensor:
    return x.detach().requires_grad_() if x.requires_grad else x


def _name(region: Callable[..., object]) -> str:
    return region.__name__ if hasattr(region, "__name__") else repr(region)


def _what(entry: _Entry | _Kept) -> str:
    return f"region `{_name(entry.region)}`" if isinstance(entry, _Entry) else f"keep of {len(entry.values)} values"

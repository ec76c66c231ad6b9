"""What a layer computes beside its products, to be timed on a tape, forward and backward, as rank programs do it.

Its kernels are those that an estimate counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from moec.compiler.cost.calibrate.clock import Call
from moec.compiler.cost.calibrate.order import Device, Precision
from moec.compiler.cost.calibrate.products import DTYPES, Work
from moec.compiler.cost.kernels import Kernel
from moec.compiler.cost.operators import recorded
from moec.compiler.cost.recorder import META, Recorder
from moec.runtime.routing import PER_SEQUENCE, fill_slots, read_slots, route, slots
from moec.runtime.tape import Tape

_HIDDEN, _HEAD, _EXPERTS = 64, 16, 4

_TOKENS: dict[Device, tuple[int, ...]] = {
    "cpu": (2**14, 2**13, 2**12, 2**10, 2**8, 2**6, 2**4, 2**2),
    "cuda": (2**20, 2**18, 2**16, 2**14, 2**12, 2**10, 2**8, 2**2),
}


@dataclass(frozen=True, slots=True)
class _Inputs:
    """x and gradient [1, tokens, hidden], cos and sin [tokens, head]."""

    x: Tensor
    weight: Parameter
    cos: Tensor
    sin: Tensor
    gradient: Tensor


def layer_kernels(device: Device, precision: Precision, every: int) -> list[tuple[Kernel, ...]]:
    """Of a layer of many tokens, of fewer, and of so few that its operators are nothing but calls."""
    return [_kernels(tokens, device, precision) for tokens in _TOKENS[device][::every]]


def layers(device: Device, precision: Precision, every: int) -> Iterator[Call]:
    """What runs them."""
    for tokens in _TOKENS[device][::every]:
        yield partial(_forward_and_backward, _inputs(tokens, torch.device(device), precision))


def smallest_layer(device: Device, precision: Precision) -> Work:
    """Whose operators are nothing but calls."""
    tokens = _TOKENS[device][-1]
    given = _inputs(tokens, torch.device(device), precision)
    return _kernels(tokens, device, precision), partial(_forward_and_backward, given)


def _kernels(tokens: int, device: Device, precision: Precision) -> tuple[Kernel, ...]:
    recorder = Recorder(gpu=device == "cuda")
    given = _inputs(tokens, META, precision)
    with recorded(recorder):
        _forward_and_backward(given)
    return tuple(alive.event for alive in recorder.events if isinstance(alive.event, Kernel))


def _inputs(tokens: int, device: torch.device, precision: Precision) -> _Inputs:
    shape, dtype = (1, tokens, _HIDDEN), DTYPES[precision]
    weight = Parameter(torch.ones(_HIDDEN, dtype=dtype, device=device))
    weight.grad = torch.zeros_like(weight)
    return _Inputs(
        torch.randn(shape, dtype=dtype, device=device).requires_grad_(),
        weight,
        torch.rand((tokens, _HEAD), dtype=dtype, device=device),
        torch.rand((tokens, _HEAD), dtype=dtype, device=device),
        torch.ones(shape, dtype=dtype, device=device),
    )


def _forward_and_backward(given: _Inputs) -> None:
    tape = Tape()
    h = tape.run(_norm, given.x, given.weight)
    h = tape.run(_rotate, h, given.cos, given.sin)
    x = tape.run(_add, given.x, h)
    h = tape.run(_norm, x, given.weight)
    h = tape.run(_activate, h)
    h = tape.run(_move_to_experts_and_back, h)
    tape.run(_add, x, h)
    gradient = given.gradient
    for region in (_add, _move_to_experts_and_back, _activate, _norm, _add, _rotate, _norm):
        found = tape.back(region, gradient)
        gradient = found[0] + found[1] if isinstance(found, tuple) else found  # sooner than in earnest, as many


def _add(x: Tensor, h: Tensor) -> Tensor:
    return x + h


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, (_HIDDEN,), weight, 1e-5)


def _rotate(h: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    q = h.view(1, -1, _HIDDEN // _HEAD, _HEAD).transpose(1, 2)
    left, right = q.chunk(2, -1)
    q = q * cos + torch.cat((-right, left), -1) * sin
    return q.transpose(1, 2).reshape(h.shape)


def _activate(h: Tensor) -> Tensor:
    return F.gelu(h) + F.silu(h) * h


def _move_to_experts_and_back(h: Tensor) -> Tensor:
    capacity = h.shape[1] // _EXPERTS + 1
    prob, expert, place = route(h[..., :_EXPERTS].float(), 1, capacity, PER_SEQUENCE)
    slot = slots(expert, place, _EXPERTS, capacity, PER_SEQUENCE)
    return read_slots(fill_slots(h, slot, _EXPERTS, capacity, PER_SEQUENCE), prob, slot)

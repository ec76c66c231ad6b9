"""Makes float64 of every floating type that a module's code names, so that only rounding is left to differ."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CASTS: dict[object, Callable[..., object]] = {
    Tensor.float: Tensor.double,
    Tensor.half: Tensor.double,
    Tensor.bfloat16: Tensor.double,
}


@contextmanager
def precise() -> Iterator[None]:
    """Within it casts to a floating type, and tensors made with one or with none stated, are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Precise():
            yield
    finally:
        torch.set_default_dtype(before)


class _Precise(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        function = _CASTS.get(func, func)
        named = {name: _widened(value) for name, value in (kwargs or {}).items()}
        return function(*[_widened(value) for value in args], **named)


def _widened(x: object) -> object:
    return torch.float64 if isinstance(x, torch.dtype) and x.is_floating_point else x

"""Makes what a forward makes out of nothing as the programs will have it: on the device and in the type of the model.

A model is traced on the meta device and in bfloat16, which stands for the plan's precision. What no device is stated
for goes there too; a filled tensor that no type is stated for is of the plan's precision; and a number that is made a
tensor becomes an operator that keeps the number, which a tensor on the meta device would not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode

_FILLED = (torch.zeros, torch.ones, torch.eye, torch.empty)
"""Makers of floating tensors, whose type is the default one. Ranges are not among them: half precision cannot count."""


@contextmanager
def on_meta() -> Iterator[None]:
    """Within it new tensors are as the module's docstring says."""
    with torch.device("meta"), _OnMeta():
        yield


class _OnMeta(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        named = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and args and isinstance(args[0], int | float):
            return _number(args[0], named)
        unstated = named.get("dtype") is None and named.get("out") is None
        if unstated and (func in _FILLED or (func is torch.full and _is_float(args, named))):
            named["dtype"] = torch.bfloat16
        return func(*args, **named)


def _is_float(args: Sequence[object], named: Mapping[str, object]) -> bool:
    return isinstance(args[1] if len(args) > 1 else named.get("fill_value"), float)


def _number(number: int | float, named: Mapping[str, object]) -> object:
    """A scalar tensor; with no type stated that of the number, which does not widen what it meets."""
    kinds = {bool: torch.bool, int: torch.int64}
    stated = named.get("dtype")
    dtype = stated if isinstance(stated, torch.dtype) else kinds.get(type(number), torch.float32)
    return torch.scalar_tensor(number, dtype=dtype)

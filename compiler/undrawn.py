"""Builds modules on the meta device, where a weight has no numbers and none are drawn for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from moec.runtime.dispatch_mode import DispatchMode

_DRAWS = frozenset(("aten::normal_", "aten::uniform_"))


@contextmanager
def undrawn() -> Iterator[None]:
    """Within it modules have weights of the meta device, and their initial values cost nothing."""
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(DispatchMode):
    """Leaves out what torch does in Python for tensors of the meta device, with an import of torch.compile."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name().partition(".")[0] in _DRAWS and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))

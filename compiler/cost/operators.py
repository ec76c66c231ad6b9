"""Watches every operator: as which kernel it runs, what it reads and writes, and which memory it makes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._pytree import tree_map

from moec.compiler.cost.fusing import Fusing
from moec.compiler.cost.kernels import Kernel
from moec.compiler.cost.recorder import META, Recorder, bytes_of, listed
from moec.runtime.dispatch_mode import DispatchMode, tensors_of


@contextmanager
def recorded(recorder: Recorder) -> Iterator[None]:
    """Whatever runs meanwhile runs without memory, and is recorded."""
    with META, Fusing(recorder), _Watching(recorder):
        yield


class _Watching(DispatchMode):
    """Notes every operator; those that would need numbers get made-up ones."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        with torch._C.DisableTorchFunction():  # what watches calls of functions has nothing to see here
            return self._noted(func, args, dict(kwargs or {}))

    def _noted(self, func: OpOverload, args: tuple[object, ...], options: dict[str, object]) -> object:
        inputs = tensors_of((args, options))
        if inputs and not any(x.is_meta for x in inputs):
            return func(*args, **options)
        if func is torch.ops.aten.bincount.default:
            least = options.get("minlength", args[2] if len(args) > 2 else 0)
            assert isinstance(least, int), "experts are counted by a number of them"
            return _balanced(inputs[0].numel(), least)
        if not all(x.is_meta for x in inputs):
            args, options = tree_map(lambda x: x.to(META) if isinstance(x, Tensor) else x, (args, options))
        result = func(*args, **options)
        if func not in _VIEWS and not _is_view(func):
            self._note(func, inputs, [x for x in tensors_of(result) if x.is_meta])
        return result

    def _note(self, func: OpOverload, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        before = {x.untyped_storage()._cdata for x in inputs}
        for x in outputs:
            if x.untyped_storage()._cdata not in before:
                self._recorder.made(x)
        if func not in _SILENT:
            self._recorder.add(_kernel(self._recorder, func, inputs, outputs))


_aten = torch.ops.aten
_SILENT = {
    _aten.empty.memory_format,
    _aten.empty_like.default,
    _aten.empty_strided.default,
    _aten.new_empty.default,
    _aten.new_empty_strided.default,
}
_VIEWS = {_aten._unsafe_view.default, _aten._reshape_alias.default}
_PRODUCTS = {
    _aten.mm.default: (0, 1),
    _aten.addmm.default: (1, 2),
    _aten.bmm.default: (0, 1),
    _aten.baddbmm.default: (1, 2),
}
"""Products, and which of their arguments are multiplied."""

_MAKES = {_aten.new_zeros.default, _aten.new_ones.default, _aten.zeros_like.default, _aten.ones_like.default}
"""Their arguments say a shape, and are not read."""

_LOOKS_UP = {_aten.embedding.default, _aten.index_select.default, _aten.gather.default}
_ADDS_ROWS = {_aten.index_add_.default}

_CONVOLUTIONS = {_aten.convolution.default: 1, _aten.convolution_backward.default: 2}


def _kernel(recorder: Recorder, func: OpOverload, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Kernel:
    name = func.name().removeprefix("aten::")
    region, reads, writes = recorder.region, _read(recorder, func, inputs, outputs), listed(recorder, outputs)
    if func in _ADDS_ROWS:
        writes = ((writes[0][0], bytes_of(inputs[2])),)
    moved = sum(size for _, size in (*reads, *writes))
    if func in _PRODUCTS:
        left, right = (inputs[place] for place in _PRODUCTS[func])
        count = left.shape[0] if left.dim() == 3 else 1
        rows, depth, columns = left.shape[-2], left.shape[-1], right.shape[-1]
        kind = "grouped" if left.dim() == 3 else "product"
        flops = 2.0 * count * rows * depth * columns
        sizes = count, rows, columns, depth
        return Kernel(name, kind, flops, moved, sizes, region, reads, writes, itemsize=left.element_size())
    if func in _CONVOLUTIONS:
        times = _CONVOLUTIONS[func]
        weight = inputs[times]
        image = outputs[0] if times == 1 else inputs[0]
        rows, depth = image.numel() // image.shape[1], prod(weight.shape[1:])
        flops = 2.0 * times * rows * depth * weight.shape[0]
        sizes = 1, rows, weight.shape[0], depth
        return Kernel(name, "product", flops, moved, sizes, region, reads, writes, itemsize=weight.element_size())
    return Kernel(name, "memory", 0.0, moved, region=region, reads=reads, writes=writes)


def _read(
    recorder: Recorder, func: OpOverload, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
) -> tuple[tuple[int, int], ...]:
    """Of what is looked up or added to by rows only the rows that are touched are read."""
    if func in _MAKES:
        return ()
    sizes = [bytes_of(x) for x in inputs]
    if func in _LOOKS_UP:
        sizes[0] = sum(bytes_of(x) for x in outputs)
    elif func in _ADDS_ROWS:
        sizes[0] = sizes[2]
    return tuple((recorder.number(x), size) for x, size in zip(inputs, sizes, strict=True))


def _is_view(func: OpOverload) -> bool:
    """Its results are parts of its arguments."""
    returns = func._schema.returns
    return bool(returns) and all(found.alias_info is not None and not found.alias_info.is_write for found in returns)


def _balanced(rows: int, experts: int) -> Tensor:
    """int64[experts] that add up to `rows`, on the CPU."""
    counts = torch.full((experts,), rows // experts, dtype=torch.int64, device="cpu")
    counts[: rows % experts] += 1
    return counts

"""Watches a rank's text run on tensors without memory: every operator, every collective, and what is alive meanwhile.

The text and the runtime under it are those of a real run. What a rank needs to know of the data is made up: the rows of
experts are balanced, times `skew` where they arrive from others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from moec.compiler.cost.kernels import Kernel, Kind
from moec.runtime.communicator import WORLD, Op, Slot, Splits
from moec.runtime.tape import Region, Tape

META = torch.device("meta")


@dataclass(frozen=True, slots=True)
class Talk:
    """One collective of a group. `size` is the bytes of a rank's operand, of an all_gather those of its own part."""

    kind: str
    group: str
    size: int
    region: str = ""
    later: bool = False
    result: int = 0
    """The number of its result's storage."""
    received: int = 0
    """Bytes of its result."""
    again: bool = False
    """Whether a framework does it a second time, for a backward, beside products."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The text enters a call of a unit, or is through with it."""

    name: str
    enters: bool


@dataclass(frozen=True, slots=True)
class Alive:
    """What happened, and the bytes that were alive after it."""

    event: Kernel | Talk | Mark
    held: int
    freed: tuple[int, ...] = ()
    """The numbers of the storages that ended since the event before."""

    @property
    def reads(self) -> dict[int, int]:
        """Storages by number, with bytes."""
        return dict(self.event.reads) if isinstance(self.event, Kernel) else {}

    @property
    def made(self) -> dict[int, int]:
        """Of what it writes, storages that were not there before the text ran."""
        if isinstance(self.event, Talk):
            return {self.event.result: self.event.received} if self.event.result > 0 else {}
        return {n: size for n, size in self.event.writes if n > 0} if isinstance(self.event, Kernel) else {}


Record: TypeAlias = list[Alive]


@dataclass(frozen=True, slots=True)
class Storage:
    """Memory of a tensor: as which shape it was made, in which region, after how many events."""

    number: int
    """Among all that were made, from 1."""
    shape: tuple[int, ...]
    itemsize: int
    region: str
    made: int
    size: int


@dataclass(slots=True)
class Recorder:
    """What has happened so far. Storages that were there before are not counted."""

    skew: float = 1.0
    gpu: bool = True
    events: Record = field(default_factory=list)
    region: str = ""
    storages: list[Storage] = field(default_factory=list)
    """All that were made, alive or not."""
    _sizes: dict[int, tuple[StorageWeakRef, Storage]] = field(default_factory=dict)
    _numbers: dict[int, int] = field(default_factory=dict)
    _freed: list[int] = field(default_factory=list)

    @contextmanager
    def record(self) -> Iterator[None]:
        with META, _Fusing(self), _Watching(self):
            yield

    def add(self, event: Kernel | Talk | Mark) -> None:
        held = self.held()
        self.events.append(Alive(event, held, tuple(self._freed)))
        self._freed.clear()

    def held(self) -> int:
        """Bytes of the storages that were made since the beginning and are alive."""
        return sum(storage.size for storage in self.alive())

    def alive(self) -> list[Storage]:
        """Those storages."""
        gone = [key for key, (storage, _) in self._sizes.items() if storage.expired()]
        for key in gone:
            del self._sizes[key]
            self._freed.append(self._numbers[key])
        return [storage for _, storage in self._sizes.values()]

    def made(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        key = storage._cdata
        known = self._sizes.get(key)
        if known is None or known[0].expired():
            if self._sizes.pop(key, None):  # an address that is used again is the latest
                self._freed.append(self._numbers[key])
            number, size = len(self.storages) + 1, storage.nbytes()
            made = Storage(number, tuple(x.shape), x.element_size(), self.region, len(self.events), size)
            self.storages.append(made)
            self._sizes[key] = StorageWeakRef(storage), made
            self._numbers[key] = number

    def number(self, x: Tensor) -> int:
        """Of a storage; 0 and below for those that were there before."""
        key = x.untyped_storage()._cdata
        return self._numbers.setdefault(key, -len(self._numbers))

    def marked(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        """The function of a unit, with a mark before and after it."""

        def inside(*args: object) -> object:
            self.add(Mark(name, enters=True))
            result = function(*args)
            self.add(Mark(name, enters=False))
            return result

        return inside


class WatchedTape(Tape):
    """A tape that says which region runs."""

    __slots__ = ("_recorder",)

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def run(self, region: Region, *args: object) -> object:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._recorder.region = _name(region)
        result = super().run(region, *args)  # pyright: ignore[reportCallIssue, reportArgumentType]
        self._recorder.region = ""
        return result

    def back(self, region: Region, *gradients: Tensor | None) -> Tensor | tuple[Tensor, ...] | None:
        self._recorder.region = _name(region)
        result = super().back(region, *gradients)
        self._recorder.region = ""
        return result


class _Watching(TorchDispatchMode):
    """Notes every operator; those that would need numbers get made-up ones."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Or else the first operation imports all of torch.compile."""
        return False

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
        inputs = _tensors((args, options))
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
            self._note(func, inputs, [x for x in _tensors(result) if x.is_meta])
        return result

    def _note(self, func: OpOverload, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        before = {x.untyped_storage()._cdata for x in inputs}
        for x in outputs:
            if x.untyped_storage()._cdata not in before:
                self._recorder.made(x)
        if func not in _SILENT:
            self._recorder.add(_kernel(self._recorder, func, inputs, outputs))


class _Fusing(TorchFunctionMode):
    """Attention and, on a GPU, RMSNorm as the one kernel each is there; without memory torch takes them apart."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        options = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            query, key, value = args[:3]
            causal = bool(options.get("is_causal", args[5] if len(args) > 5 else False))
            return _Fused.apply(query, key, value, causal, self._recorder)
        if func is F.rms_norm and self._recorder.gpu:
            weight = args[2] if len(args) > 2 else options.get("weight")
            return _Norm.apply(*args[:1], weight, self._recorder)
        return func(*args, **options)


class _Context(FunctionCtx):
    """What the forward leaves for the backward."""

    saved_tensors: tuple[Tensor, ...]
    causal: bool
    recorder: Recorder


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, query: Tensor, key: Tensor, value: Tensor, causal: bool, recorder: Recorder) -> Tensor:
        out = _laid_out_by_position(query, value.shape[-1])
        rows = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, rows)
        ctx.causal, ctx.recorder = causal, recorder
        flops = _attention_flops(query, key, value, causal)
        done = _fused(recorder, "attention", "attention", flops, (query, key, value), (out, rows))
        recorder.add(replace(done, sizes=_heads(query, key, causal)))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, rows = ctx.saved_tensors
        found = tuple(torch.empty_like(x) for x in (query, key, value))
        recorder = ctx.recorder
        flops = 2.5 * _attention_flops(query, key, value, ctx.causal)  # five products, where forward has two
        reads = (query, key, value, out, rows, gradient)
        done = _fused(recorder, "attention", "attention_backward", flops, reads, found)
        recorder.add(replace(done, sizes=_heads(query, key, ctx.causal)))
        return *found, None, None


def _laid_out_by_position(query: Tensor, size: int) -> Tensor:
    """Fused attention writes [B, H, T, D] as it lies in [B, T, H, D], which whoever joins the heads need not copy."""
    *batch, heads, positions, _ = query.shape
    return query.new_empty(*batch, positions, heads, size).transpose(-3, -2)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: Tensor, weight: Tensor, recorder: Recorder) -> Tensor:
        out, scale = torch.empty_like(x), x.new_empty(x.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(x, weight, scale)
        ctx.recorder = recorder
        recorder.add(_fused(recorder, "rms_norm", "memory", 0.0, (x, weight), (out, scale)))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        found = torch.empty_like(x), torch.empty_like(weight)
        ctx.recorder.add(_fused(ctx.recorder, "rms_norm", "memory", 0.0, (gradient, x, weight, scale), found))
        return *found, None


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> float:
    """Two products; under a causal mask half of each is not computed."""
    whole = 2.0 * prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
    return whole / 2 if causal else whole


def _heads(query: Tensor, key: Tensor, causal: bool) -> tuple[int, int, int, int]:
    """As `Kernel.sizes`."""
    keys = key.shape[-2] // 2 if causal else key.shape[-2]
    return prod(query.shape[:-2]), query.shape[-2], max(1, keys), query.shape[-1]


def _fused(
    recorder: Recorder, name: str, kind: Kind, flops: float, reads: Sequence[Tensor], writes: Sequence[Tensor]
) -> Kernel:
    moved = sum(_bytes(x) for x in (*reads, *writes))
    listed = _listed(recorder, reads), _listed(recorder, writes)
    return Kernel(name, kind, flops, moved, (1, 1, 1, 1), recorder.region, *listed)


@dataclass(frozen=True, slots=True)
class _Done:
    value: Tensor

    def wait(self) -> Tensor:
        return self.value


@dataclass(frozen=True, slots=True)
class Watcher:
    """A communicator that notes what is asked of it, and gives tensors of the right shape.

    Satisfies `Communicator`.
    """

    recorder: Recorder
    rank: int
    groups: Mapping[str, tuple[int, ...]]
    world: int

    def size(self, axes: str) -> int:
        return self.world if axes == WORLD else len(self.groups[axes])

    def coordinate(self, axes: str) -> int:
        return self.rank if axes == WORLD else self.groups[axes].index(self.rank)

    def all_reduce(self, x: Tensor, axes: str, op: Op, name: str, later: bool) -> _Done:
        return self._talk("all_reduce", x, axes, len(x) if x.dim() else None, later)

    def all_reduce_in_place(self, x: Tensor, axes: str, name: str) -> None:
        self.recorder.add(Talk("all_reduce", axes, x.nbytes, name))

    def all_gather(self, x: Tensor, axes: str, name: str, later: bool) -> _Done:
        return self._talk("all_gather", x, axes, len(x) * self.size(axes), later)

    def reduce_scatter(self, x: Tensor, axes: str, name: str, later: bool) -> _Done:
        return self._talk("reduce_scatter", x, axes, len(x) // self.size(axes), later)

    def all_to_all(self, x: Tensor, axes: str, splits: Splits | None, name: str, later: bool) -> _Done:
        return self._talk("all_to_all", x, axes, sum(splits.receive) if splits else len(x), later)

    def _talk(self, kind: str, x: Tensor, axes: str, rows: int | None, later: bool) -> _Done:
        if not x.is_meta:
            self.recorder.add(Talk(kind, axes, x.nbytes, self.recorder.region, later))
            return _Done(self._answered(kind, x, axes))
        x = x.contiguous()
        result = x.new_empty(x.shape if rows is None else (rows, *x.shape[1:]))
        ends = self.recorder.number(result), result.nbytes
        self.recorder.add(Talk(kind, axes, x.nbytes, self.recorder.region, later, *ends))
        return _Done(result)

    def _answered(self, kind: str, x: Tensor, axes: str) -> Tensor:
        """Numbers of rows, as all ranks have them: those that come here are `skew` times as many."""
        if kind == "all_gather":
            return x.repeat(self.size(axes), *[1] * (x.dim() - 1))
        return (x * self.recorder.skew).to(x.dtype) if kind == "all_to_all" else x.clone()

    def send(self, tensors: Sequence[Tensor], rank: int) -> None:
        raise NotImplementedError("only a micro-batch of one stage is watched")

    def receive(self, slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        raise NotImplementedError("only a micro-batch of one stage is watched")

    def exchange(self, tensors: Sequence[Tensor], slots: Sequence[Slot], rank: int) -> tuple[Tensor, ...]:
        raise NotImplementedError("only a micro-batch of one stage is watched")


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
    region, reads, writes = recorder.region, _read(recorder, func, inputs, outputs), _listed(recorder, outputs)
    if func in _ADDS_ROWS:
        writes = ((writes[0][0], _bytes(inputs[2])),)
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
    sizes = [_bytes(x) for x in inputs]
    if func in _LOOKS_UP:
        sizes[0] = sum(_bytes(x) for x in outputs)
    elif func in _ADDS_ROWS:
        sizes[0] = sizes[2]
    return tuple((recorder.number(x), size) for x, size in zip(inputs, sizes, strict=True))


def _is_view(func: OpOverload) -> bool:
    """Its results are parts of its arguments."""
    returns = func._schema.returns
    return bool(returns) and all(found.alias_info is not None and not found.alias_info.is_write for found in returns)


def _listed(recorder: Recorder, tensors: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    return tuple((recorder.number(x), _bytes(x)) for x in tensors)


def _bytes(x: Tensor) -> int:
    """What has to be read of a tensor: one that is expanded lies in memory once."""
    sizes = zip(x.shape, x.stride(), strict=True)
    return prod(size for size, stride in sizes if stride) * x.element_size() if x.numel() else 0


def _balanced(rows: int, experts: int) -> Tensor:
    """int64[experts] that add up to `rows`, on the CPU."""
    counts = torch.full((experts,), rows // experts, dtype=torch.int64, device="cpu")
    counts[: rows % experts] += 1
    return counts


def _tensors(tree: object) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def _name(region: Region) -> str:
    return region.__name__ if hasattr(region, "__name__") else type(region).__name__

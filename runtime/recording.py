"""Tensor operations that run without memory, and of which one result at a time can be had for real.

While recording, every new tensor is on the meta device, and what makes or changes one is recorded. `value` replays what
one tensor needs, on the CPU: its own operations and those of the tensors they read, in order. A random operation draws
from a generator of its own, seeded by the seed and by the name of the tensor it fills, so that a value does not depend
on which others are made. What needs a real number while recording (`.item()`, an operator without a meta kernel) is
replayed up to there. Tensors of given data (torch.tensor, torch.from_numpy) are real from the start.

torchdistX's deferred_init was the model.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, UntypedStorage
from torch._ops import OpOverload
from torch.nn import init
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from moec.runtime.dispatch_mode import DispatchMode, tensors_of

Storages = dict[int, UntypedStorage]


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor without memory: which storage, and how it lies there. A tensor's own layout may change in place."""

    storage: int
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    offset: int

    def of(self, storages: Storages) -> Tensor:
        return torch.empty(0, dtype=self.dtype).set_(storages[self.storage], self.offset, self.size, self.stride)


@dataclass(frozen=True, slots=True)
class _Operation:
    target: Callable[..., object]
    arguments: tuple[object, ...]  # tensors as _View, or real ones
    options: Mapping[str, object]
    random: bool
    reads: frozenset[int]  # storages, also those that it changes
    made: Mapping[int, _View]  # new storages: by their place among the results
    changed: frozenset[int]

    @property
    def written(self) -> frozenset[int]:
        return self.changed | {view.storage for view in self.made.values()}

    def replay(self, storages: Storages) -> None:
        arguments, options = tree_map(lambda x: x.of(storages) if isinstance(x, _View) else x, self._real())
        results = tree_leaves(self.target(*arguments, **options))
        for place, view in self.made.items():
            result = results[place]
            if (result.size(), result.stride(), result.storage_offset()) != (view.size, view.stride, view.offset):
                result = torch.empty_strided(view.size, view.stride, dtype=view.dtype).copy_(result)
            storages[view.storage] = result.untyped_storage()

    def _real(self) -> tuple[tuple[object, ...], dict[str, object]]:
        changes = {"device": torch.device("cpu"), "generator": None}
        return self.arguments, {name: changes.get(name, value) for name, value in self.options.items()}


class Recording:
    """Code that runs in `record()` is recorded. Then `name` the tensors that are wanted, and ask for their values."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._operations: list[_Operation] = []
        self._writers: dict[int, list[int]] = {}  # of a storage: numbers of operations
        self._storages: list[UntypedStorage] = []  # keeps their addresses from being used again
        self._labels: dict[int, str] = {}  # of random operations
        self._drawn: set[int] = set()  # random operations that were replayed

    @contextmanager
    def record(self) -> Iterator[None]:
        """Initialisation by torch.nn.init is recorded too, which leaves out tensors on the meta device."""
        fill = init._no_grad_trunc_normal_  # draws again until all is within bounds: one operation here

        def fill_later(x: Tensor, *bounds: float, generator: torch.Generator | None = None) -> Tensor:
            arguments = (_view(x), *bounds)
            self._add(_Operation(fill, arguments, {}, True, frozenset(), {}, frozenset((_key(x),))))
            return x

        init._no_grad_trunc_normal_ = fill_later
        try:
            with _SaysNotMeta(), _RecordingMode(self):
                yield
        finally:
            init._no_grad_trunc_normal_ = fill

    def name(self, named: Mapping[str, Tensor]) -> None:
        """Seed random operations by the first of these tensors that needs them, unless they were replayed already."""
        for name, x in named.items():
            random = [n for n in self._needed(_key(x)) if self._operations[n].random] if x.is_meta else []
            for nth, number in enumerate(random):
                if number not in self._drawn:
                    self._labels.setdefault(number, f"{name} {nth}")

    def value(self, x: Tensor) -> Tensor:
        """The values of a tensor that was made while recording, on the CPU."""
        if not x.is_meta:
            return x
        storages: Storages = {}
        with torch.random.fork_rng(devices=()), torch.no_grad():
            for number in self._needed(_key(x)):
                if self._operations[number].random:
                    self._drawn.add(number)
                    torch.manual_seed(_hash(self._seed, self._labels.get(number, str(number))))
                self._operations[number].replay(storages)
        return _view(x).of(storages)

    def note(self, func: OpOverload, args: tuple[object, ...], options: Mapping[str, object], results: object) -> None:
        """An operation with its results on the meta device. A view of what is known needs none."""
        made = {}
        for place, x in enumerate(tree_leaves(results)):
            if isinstance(x, Tensor) and _key(x) not in self._writers:
                made[place] = _view(x)
                self._writers[_key(x)] = []
                self._storages.append(x.untyped_storage())
        changed = frozenset(_key(x) for x in _changed(func, args, options))
        if made or changed:
            arguments, kept = tree_map(_recorded, (args, options))
            random = torch.Tag.nondeterministic_seeded in func.tags
            reads = frozenset(_key(x) for x in tensors_of((args, options)) if x.is_meta)
            self._add(_Operation(func, arguments, kept, random, reads, made, changed))

    def _add(self, operation: _Operation) -> None:
        for key in operation.written:
            self._writers[key].append(len(self._operations))
        self._operations.append(operation)

    def _needed(self, storage: int) -> list[int]:
        """Numbers of the operations that make a storage what it is, in order."""
        needed: set[int] = set()
        storages, unseen = {storage}, [storage]
        while unseen:
            for number in self._writers[unseen.pop()]:
                if number not in needed:
                    needed.add(number)
                    new = (self._operations[number].reads | self._operations[number].written) - storages
                    storages |= new
                    unseen += new
        return sorted(needed)


class _RecordingMode(DispatchMode):
    """Sends operations that make a tensor, or read one without memory, to the recording."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self._recording = recording

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        options = dict(kwargs or {})
        tensors = tensors_of((args, options))
        makes = not tensors and any(argument.name == "device" for argument in func._schema.arguments)
        if not makes and not any(x.is_meta for x in tensors):
            return func(*args, **options)
        changed = _changed(func, args, options)
        if all(x.is_meta for x in changed):
            if makes or options.get("device") is not None:
                options["device"] = torch.device("meta")
            meta_args, meta_options = tree_map(_to_meta, (args, options))
            try:
                results = func(*meta_args, **meta_options)
            except (NotImplementedError, RuntimeError):
                if changed:
                    raise
            else:
                self._recording.note(func, args, options, results)
                return results
        real_args, real_options = tree_map(self._real, (args, options))
        return func(*real_args, **real_options)

    def _real(self, x: object) -> object:
        return self._recording.value(x) if isinstance(x, Tensor) else x


class _SaysNotMeta(TorchFunctionMode):
    """Code that skips tensors on the meta device does not skip these."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        return False if func == _IS_META else func(*args, **(kwargs or {}))


_IS_META = vars(torch._C.TensorBase)["is_meta"].__get__


def _changed(func: OpOverload, args: Sequence[object], options: Mapping[str, object]) -> list[Tensor]:
    """Arguments that the operator writes to."""
    schema = func._schema.arguments
    given = {argument.name: value for argument, value in zip(schema, args, strict=False)} | dict(options)
    written = [argument.name for argument in schema if argument.alias_info and argument.alias_info.is_write]
    return tensors_of([given.get(name) for name in written])


def _recorded(x: object) -> object:
    if not isinstance(x, Tensor):
        return x
    return _view(x) if x.is_meta else x.clone()


def _view(x: Tensor) -> _View:
    return _View(_key(x), x.dtype, x.size(), x.stride(), int(x.storage_offset()))


def _to_meta(x: object) -> object:
    return x.to("meta") if isinstance(x, Tensor) else x


def _key(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _hash(seed: int, label: str) -> int:
    digest = hashlib.blake2b(f"{seed} {label}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

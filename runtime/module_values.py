"""Initial values of a user's module, from its own code, and the same on every rank and mesh.

The class is built once, without memory; the values of a parameter or buffer (also one that is not saved) are those its
constructor gives it, whatever way it goes about it: `reset_parameters`, torch.nn.init, `self.apply(...)`, or plain
arithmetic. They are made on the CPU, for one tensor at a time, in the dtype that the constructor chose. What is random
is seeded by the tensor's name (`recording`). Tensors that share memory are alike.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from moec.runtime.recording import Recording


class ModelFault(Exception):
    """A module that cannot be built; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Model:
    """A class of the user's, and what it is called with."""

    target: str  # "package.module:Class"
    arguments: Mapping[str, object]
    path: tuple[str, ...] = ()  # folders where the package may be


@dataclass(slots=True)
class ModuleValues:
    """The initial values of a module under one seed."""

    model: Model
    seed: int
    _recording: Recording = field(init=False)
    _tensors: dict[str, Tensor] = field(init=False)
    _last: tuple[str, Tensor] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._recording = Recording(self.seed)
        build = class_of(self.model)
        try:
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(self.seed)
                with self._recording.record():
                    module = build(**self.model.arguments)
        except Exception as fault:
            raise ModelFault(f"model {self.model.target} cannot be built: {type(fault).__name__}: {fault}") from fault
        if not isinstance(module, nn.Module):
            raise ModelFault(f"model {self.model.target} is no torch.nn.Module")
        named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
        self._tensors = dict(named)
        self._recording.name(self._tensors)

    @property
    def names(self) -> frozenset[str]:
        """Of all parameters and buffers, also those that the plan's programs do not read."""
        return frozenset(self._tensors)

    def __call__(self, name: str, shape: Sequence[int], init: str, where: Sequence[slice]) -> Tensor:
        """Elements `where` of the parameter or buffer `name` of this shape; float64, or complex128."""
        if name not in self._tensors:
            raise ModelFault(f"model {self.model.target} has no parameter or buffer {name}")
        if self._last is None or self._last[0] != name:
            self._last = None  # frees it first
            self._last = name, self._recording.value(self._tensors[name]).detach()
        whole = self._last[1]
        if whole.shape != tuple(shape):
            raise ModelFault(f"{name} of model {self.model.target} is {list(whole.shape)}, the plan's {list(shape)}")
        return whole[tuple(where)].to(torch.complex128 if whole.is_complex() else torch.float64)


def class_of(model: Model) -> type[nn.Module]:
    """The class that a model names; raises ModelFault if there is none."""
    module_name, _, name = model.target.partition(":")
    try:
        return vars(importlib.import_module(module_name))[name]
    except ImportError as fault:
        raise ModelFault(f"model {model.target}: {fault}") from None
    except KeyError:
        raise ModelFault(f"model {model.target}: module {module_name} has no {name}") from None

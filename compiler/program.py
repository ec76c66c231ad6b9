"""The program: the one small IR that every later pass, the emitter, the estimate and the checks read.

A model is a chain of unit calls; a unit (an embedding, a layer, a head) is traced once for all its instances and holds,
forward and backward, regions of plain operators with collectives between them. A stage is a slice of the chain and a
schedule. All sizes are formulas over the plan's symbols; names refer to values, never numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from sympy import Expr, Symbol

from moec.compiler.placement import Axes, Move, Placement

Shape = tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Where:
    """The module path and the line of the model's source that an operator comes from."""

    path: str
    file: str = ""
    line: int = 0
    code: str = ""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor: of the whole mesh in `shape`, of one rank by `placement`."""

    name: str
    shape: Shape
    dtype: torch.dtype
    kind: Literal["input", "weight", "table", "activation"]
    placement: Placement
    differentiable: bool
    label: str = ""  # the name that the model's own source gives it
    ragged: bool = False  # rows sorted by expert: all dims but the last are one, of a size that is data


@dataclass(frozen=True, slots=True)
class Ref:
    """An argument that is a value."""

    name: str


Argument = "Ref | Expr | int | float | str | bool | None | torch.dtype | torch.device | tuple[Argument, ...]"


@dataclass(frozen=True, slots=True)
class Op:
    """One operator: target and arguments as torch.export names them."""

    target: str
    args: tuple[object, ...]
    kwargs: tuple[tuple[str, object], ...]
    outputs: tuple[str, ...]
    where: Where
    local: str = ""  # how the operator runs on a shard, where that differs from the whole

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(refs(self.args) + refs(tuple(value for _, value in self.kwargs)))


def refs(argument: object) -> list[str]:
    """Names of the values in an argument, nested tuples included."""
    if isinstance(argument, Ref):
        return [argument.name]
    if isinstance(argument, tuple):
        return [name for item in argument for name in refs(item)]
    return []


@dataclass(frozen=True, slots=True)
class Graph:
    """A traced unit before placement: straight-line operators over named values."""

    inputs: tuple[str, ...]
    weights: tuple[tuple[str, str], ...]  # value, name of the parameter or buffer in the module
    ops: tuple[Op, ...]
    outputs: tuple[str, ...]
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Collective:
    """One move of a coercion: `source` becomes `output` by talking over `axes`, or a silent local change."""

    move: Move
    source: str
    output: str
    reason: str  # who asked for it
    where: Where
    routing: tuple[str, str] | None = None  # counts and arrivals of a ragged exchange


@dataclass(frozen=True, slots=True)
class Compute:
    """A region: a convex set of operators without communication, emitted as one function."""

    name: str
    inputs: tuple[str, ...]
    weights: tuple[str, ...]
    ops: tuple[Op, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Backward:
    """Autograd inside one region: gradients of its outputs to gradients of its inputs, and of its weights."""

    region: str
    gradients: tuple[str | None, ...]  # of the outputs that carry one
    outputs: tuple[str, ...]  # of the inputs that carry one


@dataclass(frozen=True, slots=True)
class Transposed:
    """The backward half of a collective."""

    of: Collective
    source: str
    output: str


@dataclass(frozen=True, slots=True)
class Add:
    """The gradient of a value that several readers had."""

    terms: tuple[str, ...]
    output: str


Forward = Compute | Collective
Reverse = Backward | Transposed | Add


@dataclass(frozen=True, slots=True)
class Parameter:
    """A weight of a unit: its name in the module, its slice, and over what its gradient is summed after the step."""

    value: str
    name: str
    summed: Axes
    initial: str
    trainable: bool


@dataclass(frozen=True, slots=True)
class Unit:
    """What is traced and emitted once: a kind of layer, under one typing of its inputs."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    values: Mapping[str, Value]
    forward: tuple[Forward, ...]
    backward: tuple[Reverse, ...] = ()
    gradients: tuple[tuple[str, str], ...] = ()  # of inputs: value, name of its gradient
    cost: Expr | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One instance of a unit in the model: `prefix` is its module path, values are the model's."""

    unit: str
    prefix: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """A slice of the model's calls with what crosses its two boundaries."""

    index: int
    calls: tuple[Call, ...]
    received: tuple[str, ...]
    sent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """Everything that the emitter writes down."""

    units: Mapping[str, Unit]
    stages: tuple[Stage, ...]
    values: Mapping[str, Value]  # of the model: what units pass to each other
    inputs: tuple[str, ...]
    tables: Unit | None
    count: Unit | None  # valid tokens of a micro-batch, where the model's loss is a (sum, count)
    loss: str
    symbols: Mapping[Symbol, int | float]
    constants: Mapping[str, object] = field(default_factory=dict)

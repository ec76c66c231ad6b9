"""The program: the one small IR that every later pass, the emitter, the estimate and the checks read.

A model is a chain of unit calls; a unit (an embedding, a layer, a head) is traced once for all its instances and holds,
forward and backward, regions of plain operators with collectives between them. A stage is a slice of the chain and a
schedule. All sizes are formulas over the plan's symbols; names refer to values, never numbers.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal, TypeAlias

import torch
from sympy import Expr

from moec.compiler.model import Input
from moec.compiler.placement import Axes, Move, Placement, invariant
from moec.compiler.sizes import Sizes
from moec.dsl.plan import Plan

Shape: TypeAlias = tuple[Expr, ...]
Kind: TypeAlias = Literal["input", "weight", "buffer", "table", "activation"]


@dataclass(frozen=True, slots=True)
class Where:
    """The module path and the line of the model's source that an operator comes from."""

    path: str = ""
    file: str = ""
    line: int = 0
    code: str = ""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor: of the whole mesh in `shape`, of one rank by `placement`."""

    name: str
    shape: Shape
    dtype: torch.dtype
    kind: Kind = "activation"
    label: str = ""  # the name that the model's own source gives it
    hint: str = ""  # what it is called where it is read
    placement: Placement = field(default_factory=lambda: invariant(0))
    dims: tuple[str | None, ...] = ()  # logical dims, as far as they are known
    differentiable: bool = False
    ragged: str = ""  # if its rows are sorted and their number is data: the value that holds the counts
    routing: tuple["Routing", ...] = ()  # how ragged rows came to this rank, in order

    def placed(self, placement: Placement) -> "Value":
        return replace(self, placement=placement)


@dataclass(frozen=True, slots=True)
class Routing:
    """One exchange of ragged rows: over which axes, and the values that say how many rows go where.

    `send` goes to the owner of a row, `gather` to all, `own` keeps of what all have what is the rank's own.
    """

    kind: Literal["send", "gather", "own"]
    axes: Axes
    counts: str  # of the rows before it
    arrivals: str = ""  # what each rank sends here, or everyone's counts


@dataclass(frozen=True, slots=True)
class Ref:
    """An argument that is a value."""

    name: str


@dataclass(frozen=True, slots=True)
class Group:
    """An argument that is the group over some axes."""

    axes: Axes


@dataclass(frozen=True, slots=True)
class Part:
    """An argument that is a rank's part of a size."""

    size: Expr
    axes: Axes


Argument: TypeAlias = object
"""Ref, Group, Part, Expr, int, float, str, bool, None, torch.dtype, or a tuple of arguments."""


@dataclass(frozen=True, slots=True)
class Op:
    """One operator: target and arguments as torch.export names them."""

    target: str
    args: tuple[Argument, ...]
    kwargs: tuple[tuple[str, Argument], ...]
    outputs: tuple[str, ...]
    where: Where = Where()

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*refs(self.args), *refs(tuple(value for _, value in self.kwargs)))


def refs(argument: Argument) -> tuple[str, ...]:
    """Names of the values in an argument, nested tuples included."""
    if isinstance(argument, Ref):
        return (argument.name,)
    if isinstance(argument, tuple):
        return tuple(name for item in argument for name in refs(item))
    return ()


def renamed(argument: Argument, names: Mapping[str, str]) -> Argument:
    """An argument with its values under other names."""
    if isinstance(argument, Ref):
        return Ref(names.get(argument.name, argument.name))
    if isinstance(argument, tuple):
        return tuple(renamed(item, names) for item in argument)
    return argument


@dataclass(frozen=True, slots=True)
class Graph:
    """A traced unit before placement: straight-line operators over named values."""

    inputs: tuple[str, ...]
    weights: tuple[tuple[str, str], ...]  # value, name of the parameter or buffer below the unit's prefix
    ops: tuple[Op, ...]
    outputs: tuple[str, ...]
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Collective:
    """One move of a coercion: `source` becomes `output` by talking over `axes`, or a silent local change."""

    move: Move
    source: str
    output: str
    reason: str  # why, for the reader of the emitted text
    where: Where
    routing: Routing | None = None  # of ragged rows


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
class Joined:
    """Sums over one group that go in one message, since none waits for another (join_reductions)."""

    moves: tuple[Transposed, ...]


@dataclass(frozen=True, slots=True)
class Add:
    """The gradient of a value that several readers had."""

    terms: tuple[str, ...]
    output: str


@dataclass(frozen=True, slots=True)
class Accumulate:
    """The gradient of a weight that was gathered, sliced or made a summand before it was used."""

    weight: str
    source: str


Forward: TypeAlias = Compute | Collective
Reverse: TypeAlias = Backward | Transposed | Joined | Add | Accumulate


def reads(item: Reverse) -> tuple[str, ...]:
    """The gradients that an instruction of a backward needs."""
    match item:
        case Backward(gradients=gradients):
            return tuple(g for g in gradients if g is not None)
        case Transposed(source=source) | Accumulate(source=source):
            return (source,)
        case Joined(moves=moves):
            return tuple(move.source for move in moves)
        case Add(terms=terms):
            return terms


def binds(item: Reverse) -> tuple[str, ...]:
    """The gradients that it makes."""
    match item:
        case Backward(outputs=outputs):
            return outputs
        case Transposed(output=output) | Add(output=output):
            return (output,)
        case Joined(moves=moves):
            return tuple(move.output for move in moves)
        case Accumulate():
            return ()


@dataclass(frozen=True, slots=True)
class Parameter:
    """A weight of a unit: its name below the unit's prefix, its slice, and over what its gradient is a partial sum."""

    value: str
    name: str
    init: str
    summed: Axes
    trainable: bool = True


@dataclass(frozen=True, slots=True)
class Stacked:
    """Weights that lie one after the other in memory, and are read as one: `value` has their rows (join_linears)."""

    value: str
    parts: tuple[str, ...]


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
    seeds: tuple[str | None, ...] = ()  # of outputs that carry one: name of the gradient
    gradients: tuple[tuple[str, str], ...] = ()  # of inputs that carry one: value, name of its gradient
    stacked: tuple[Stacked, ...] = ()
    graph: str = ""  # what it was traced as


@dataclass(frozen=True, slots=True)
class Call:
    """One instance of a unit in the model: `prefix` is its module path, values are the model's."""

    unit: str
    prefix: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    repeated: bool = False  # an element of a list of modules


@dataclass(frozen=True, slots=True)
class Loop:
    """Calls of one stage that repeat: each turn calls `body` once, and carries its last outputs into the next."""

    turns: tuple[tuple[Call, ...], ...]

    @property
    def body(self) -> tuple[Call, ...]:
        return self.turns[0]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One line of a schedule. `kind` says what; `index` is the micro-batch."""

    kind: Literal["receive", "send", "forward", "backward", "send_back", "receive_back", "forth", "back"]
    index: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A slice of the model's calls with what crosses its two boundaries, and its schedule."""

    index: int
    calls: tuple[Call, ...]
    loops: tuple[Loop, ...] = ()
    received: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()
    schedule: tuple[Instruction, ...] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """Everything that the emitter writes down."""

    plan: Plan
    sizes: Sizes
    inputs: tuple[Input, ...]
    graphs: Mapping[str, Graph]
    calls: tuple[Call, ...]
    values: Mapping[str, Value]  # of the model: what units pass to each other
    tables: Graph | None
    count: Graph | None  # valid positions of a micro-batch, where the model's loss is a (sum, count)
    loss: str
    patterns: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
    initial: tuple[tuple[str, str], ...] = ()
    padded: frozenset[str] = frozenset()  # logical dims that need not divide
    shared: Mapping[str, str] = field(default_factory=dict)  # weights with several names: name -> the first
    unsaved: frozenset[str] = frozenset()  # buffers that the module leaves out of its state_dict
    state: frozenset[str] = frozenset()  # names in its state_dict
    units: Mapping[str, Unit] = field(default_factory=dict)
    counter: Unit | None = None
    stages: tuple[Stage, ...] = ()
    spans: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # stages of a weight that several have

    @property
    def world_size(self) -> int:
        return self.plan.mesh.world_size

    @property
    def distinct_programs(self) -> int:
        return len(self.stages)

    @property
    def parameters(self) -> int:
        """Trained elements of the model, each counted once."""
        trained = {name: value for name, parameter, value in self.weights(self.calls) if parameter.trainable}
        return sum(prod(int(self.sizes.value(size, 0)) for size in value.shape) for value in trained.values())

    def stage_of(self, rank: int) -> int:
        """The index of the stage that a rank runs."""
        axis = self.plan.pipeline_axis
        return self.plan.mesh.coordinates(rank)[axis] if axis else 0

    def weights(self, calls: Iterable[Call]) -> Iterator[tuple[str, Parameter, Value]]:
        """Full name, parameter and value of every weight of these calls; one that several have comes again."""
        return weights_of(calls, self.units)

    def has_loss(self, stage: Stage) -> bool:
        return any(self.loss in call.outputs for call in stage.calls)

    def local_size(self, size: Expr, axes: Axes, sizing: int = 0) -> int:
        """A rank's part of a size in one of the sizings; of one that does not divide, padded."""
        return -(-int(self.sizes.value(size, sizing)) // self.plan.mesh.size(axes))

    def local_shape(self, value: Value, sizing: int = 0) -> list[int]:
        """The shape of a rank's part of a value; the last rank's may be shorter where a size does not divide."""
        sizes = zip(value.shape, value.placement.split, strict=True)
        return [self.local_size(size, axes, sizing) for size, axes in sizes]


def weights_of(calls: Iterable[Call], units: Mapping[str, Unit]) -> Iterator[tuple[str, Parameter, Value]]:
    """As `Program.weights`."""
    for call in calls:
        unit = units[call.unit]
        for parameter in unit.parameters:
            yield full_name(call.prefix, parameter.name), parameter, unit.values[parameter.value]


def full_name(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def whole(name: str, shape: Shape, dtype: torch.dtype, kind: Kind = "activation", label: str = "") -> Value:
    """A value that no axis splits yet."""
    return Value(name, shape, dtype, kind, label, "", invariant(len(shape)), (None,) * len(shape))

"""The plan: what a `.plan` says, typed and checked. The compiler reads this and never the text."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

from moec.dsl.diagnostics import Diagnostic
from moec.dsl.mesh import Mesh
from moec.dsl.schema import WEIGHTS
from moec.dsl.source import Label, Place, Source, Span

Argument: TypeAlias = int | float | bool | str

FOLLOWS = {"kv_heads": "heads", "expert_ffn": "ffn"}
"""A dim that has no line of its own in `shard` goes where its leader goes."""


@dataclass(frozen=True, slots=True)
class Experts:
    """The feed-forward of every `every`-th layer: `count` experts, of which each token takes `top_k`."""

    count: int
    hidden: int
    top_k: int
    capacity: Fraction | None
    """Rows of an expert over the mean, exact (1.1 is 11/10); None is dropless."""
    min_capacity: int
    route: str
    """The tokens among which a capacity is shared out: per_sequence or per_microbatch."""
    gated: bool
    softmax_first: bool
    """Softmax over all experts and then the choice, or the other way round."""
    every: int
    place: Place | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Decoder:
    """A model described in the plan: a decoder-only transformer."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int | None
    """None where every layer has experts."""
    vocab: int
    seq: int
    gated: bool
    tied: bool
    norm_eps: float
    rope_base: float
    experts: Experts | None
    place: Place | None = field(default=None, compare=False, repr=False)

    def sparse(self, layer: int) -> bool:
        """Whether a layer, counted from 0, has experts."""
        return self.experts is not None and (layer + 1) % self.experts.every == 0

    @property
    def span(self) -> Span | None:
        return self.place.span if self.place else None


@dataclass(frozen=True, slots=True)
class Input:
    """One input of an imported model, `image = float[batch, 3, height, width]`."""

    name: str
    kind: str
    """float or int."""
    dims: tuple[str | int, ...]
    """`batch`, the name of a constructor argument, or a size."""
    below: int | str | None
    """Integers are drawn below this: a size or the name of a constructor argument."""
    place: Place | None = field(default=None, compare=False, repr=False)

    @property
    def span(self) -> Span | None:
        return self.place.span if self.place else None


@dataclass(frozen=True, slots=True)
class Pattern:
    """The logical dims of every weight whose name matches a glob; None is a dim without a name."""

    pattern: str
    dims: tuple[str | None, ...]
    place: Place | None = field(default=None, compare=False, repr=False)

    @property
    def span(self) -> Span | None:
        return self.place.span if self.place else None


@dataclass(frozen=True, slots=True)
class Imported:
    """A torch.nn.Module of the user's: `target` is "package.module:Class"."""

    target: str
    arguments: tuple[tuple[str, Argument], ...]
    small: tuple[tuple[str, Argument], ...]
    """Arguments that `verify` and the second probe use instead."""
    inputs: tuple[Input, ...]
    small_inputs: tuple[Input, ...]
    """The inputs once more, with arithmetic over arguments done for the small ones."""
    data: str | None
    weights: tuple[Pattern, ...]
    place: Place | None = field(default=None, compare=False, repr=False)

    @property
    def span(self) -> Span | None:
        return self.place.span if self.place else None


@dataclass(frozen=True, slots=True)
class Shard:
    """A line `dims over axes`; whole where there are no axes."""

    dims: tuple[str, ...]
    axes: tuple[str, ...]
    place: Place | None = field(default=None, compare=False, repr=False)

    @property
    def span(self) -> Span | None:
        return self.place.span if self.place else None


@dataclass(frozen=True, slots=True)
class Schedule:
    """`kind` is gpipe or 1f1b; a step takes `batch` sequences in `accumulate` micro-batches."""

    kind: str
    batch: int
    accumulate: int


@dataclass(frozen=True, slots=True)
class Train:
    """The optimizer and how precisely it computes."""

    optimizer: str
    lr: float
    warmup: int
    """Steps in which the learning rate rises to `lr`."""
    decay: str
    """constant, cosine or linear: from `lr` at the end of the warm-up to `final_lr` at `steps`."""
    steps: int | None
    """How many a run takes, unless it is told otherwise."""
    final_lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    decayed: tuple[str, ...]
    """Patterns of weights that decay; by themselves those of two dims or more do."""
    undecayed: tuple[str, ...]
    """Patterns of weights that do not, which count last."""
    clip: float | None
    not_finite: str
    """What a step does whose loss or gradient is not finite: stop or skip."""
    precision: str
    """bf16, fp32 or fp64."""
    recompute: str
    """none, selective or full."""
    seed: int
    initial: str | None
    """A file of weights to start from, or a folder of them, as the plan names it."""


@dataclass(frozen=True, slots=True)
class Communicate:
    """How collectives are coalesced and overlapped."""

    batch: int
    overlap: bool


@dataclass(frozen=True, slots=True)
class Hardware:
    """A named entry of the hardware table, and what the plan says otherwise (bytes, seconds, FLOPs)."""

    name: str
    fields: tuple[tuple[str, Fraction], ...]


@dataclass(frozen=True, slots=True)
class Require:
    """A bound that the estimate is held to, in bytes, seconds, tokens/s or a plain ratio."""

    name: str
    relation: str
    bound: Fraction
    place: Place | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole plan after all checks that need no trace."""

    name: str
    """The name of its file, without the ending."""
    source: Source
    model: Decoder | Imported
    mesh: Mesh
    pipeline_axis: str | None
    """The axis that `layers` goes over."""
    shard: tuple[Shard, ...]
    patterns: tuple[Pattern, ...]
    """Lines of `shard` that name the dims of single weights."""
    schedule: Schedule
    train: Train
    communicate: Communicate | None
    hardware: Hardware | None
    require: tuple[Require, ...]
    warnings: tuple[Diagnostic, ...]
    overrides: tuple[str, ...]
    places: dict[str, Place] = field(compare=False, repr=False)
    """Where each setting was written: "model.heads", "mesh.tp", "shard.heads"."""

    def line_of(self, dim: str) -> Shard | None:
        """The line of `shard` that places a dim: its own, or else its leader's; None if there is neither."""
        lines = {name: line for line in self.shard for name in line.dims}
        leader = FOLLOWS.get(dim, dim) if isinstance(self.model, Decoder) else dim
        return lines.get(dim) or lines.get(leader)

    def axes_of(self, dim: str) -> tuple[str, ...]:
        """The mesh atoms that a dim is split over, major first; none if it is whole.

        A dim that merely follows leaves the atoms alone that split another dim of one of its weights.
        """
        line = self.line_of(dim)
        if line is None:
            return ()
        atoms = tuple(atom for axis in line.axes for atom in self.mesh.atoms_of(axis))
        if dim in line.dims:
            return atoms
        beside = {other for dims in WEIGHTS.values() if dim in dims for other in dims if other not in FOLLOWS}
        taken = {atom for other in beside for atom in self.axes_of(other)}
        return tuple(atom for atom in atoms if atom not in taken)

    def dim_place(self, dim: str) -> Place:
        """Where a dim that has a line is named, or else its leader."""
        return self.places.get(f"shard.{dim}") or self.places[f"shard.{FOLLOWS[dim]}"]

    def label(self, path: str) -> Label | None:
        """The place of a setting, such as "model.heads", to point a diagnostic at; None if it was not written."""
        place = self.places.get(path)
        return place.label() if place else None

"""What a plan may say: the blocks, their settings, and what each setting may be."""

from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from moec.dsl.units import BYTE_RATE, BYTES, FLOP_RATE, PLAIN, SECONDS, TOKEN_RATE, Unit

MOST = 2**31 - 1
"""The largest whole number that a setting takes, unless it says otherwise: products of two still fit 64 bits."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number."""

    least: int = 1
    most: int = MOST

    def holds(self, value: Fraction) -> bool:
        return value.denominator == 1 and self.least <= value <= self.most

    @property
    def wanted(self) -> str:
        return f"a whole number from {self.least} to {self.most:_}"


@dataclass(frozen=True, slots=True)
class Real:
    """An exact number with a unit, in `[least, most]`, ends left out where `open_*` says so."""

    least: Fraction = Fraction(0)
    most: Fraction = Fraction(10**30)
    open_least: bool = False
    open_most: bool = False
    unit: Unit = PLAIN
    none: bool = False
    """Whether the word `none` stands for no value."""

    def high_enough(self, value: Fraction) -> bool:
        return value > self.least or (value == self.least and not self.open_least)

    def low_enough(self, value: Fraction) -> bool:
        return value < self.most or (value == self.most and not self.open_most)

    def holds(self, value: Fraction) -> bool:
        return self.high_enough(value) and self.low_enough(value)

    @property
    def wanted(self) -> str:
        least = f"above {float(self.least):g}" if self.open_least else f"from {float(self.least):g}"
        return f"a number {least} {'below' if self.open_most else 'to'} {float(self.most):g}"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""


@dataclass(frozen=True, slots=True)
class Patterns:
    """Names of weights, each a string in which `*` stands for anything."""


@dataclass(frozen=True, slots=True)
class FileName:
    """The name of a file or folder, as a string."""


Kind: TypeAlias = Whole | Real | Choice | Flag | Patterns | FileName
Setting: TypeAlias = int | Fraction | str | bool | tuple[str, ...] | None
"""The value of a setting; None is `none`, or not given."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A setting: what it may be, and what it is where the plan is silent."""

    kind: Kind
    default: Setting = None
    required: bool = False


_POSITIVE = Real(open_least=True)
_SHARE = Real(most=Fraction(1), open_most=True)


def _amount(unit: Unit) -> Entry:
    return Entry(Real(open_least=True, unit=unit))


_PART = Entry(Real(most=Fraction(1), open_least=True))
_DEPTH = Entry(Real(most=Fraction(1_048_576)))
_OVERHEAD = Entry(Real(unit=SECONDS))
"""Seconds that may be none at all."""


SETTINGS: dict[str, dict[str, Entry]] = {
    "model": {
        "layers": Entry(Whole(most=65_536), required=True),
        "hidden": Entry(Whole(), required=True),
        "heads": Entry(Whole(), required=True),
        "kv_heads": Entry(Whole()),
        "head_dim": Entry(Whole()),
        "ffn": Entry(Whole()),
        "vocab": Entry(Whole(), required=True),
        "seq": Entry(Whole(), required=True),
        "gated": Entry(Flag(), False),
        "tied": Entry(Flag(), False),
        "norm_eps": Entry(Real(most=Fraction(1), open_least=True), Fraction(1, 10**5)),
        "rope_base": Entry(_POSITIVE, Fraction(10_000)),
    },
    "model.experts": {
        "count": Entry(Whole(most=1_048_576), required=True),
        "hidden": Entry(Whole(), required=True),
        "top_k": Entry(Whole(), required=True),
        "capacity": Entry(Real(open_least=True, most=Fraction(10**6), none=True)),
        "min_capacity": Entry(Whole(least=0), 0),
        "route": Entry(Choice(("per_sequence", "per_microbatch")), "per_sequence"),
        "gated": Entry(Flag(), False),
        "softmax": Entry(Choice(("before", "after")), "before"),
        "every": Entry(Whole(), 1),
    },
    "schedule": {
        "batch": Entry(Whole(), required=True),
        "accumulate": Entry(Whole(most=1_048_576), 1),
    },
    "train": {
        "optimizer": Entry(Choice(("adamw",)), "adamw"),
        "lr": Entry(Real(most=Fraction(10**6)), Fraction(3, 10**4)),
        "warmup": Entry(Whole(least=0), 0),
        "decay": Entry(Choice(("constant", "cosine", "linear")), "constant"),
        "steps": Entry(Whole()),
        "final_lr": Entry(Real(most=Fraction(10**6)), Fraction(0)),
        "beta1": Entry(_SHARE, Fraction(9, 10)),
        "beta2": Entry(_SHARE, Fraction(95, 100)),
        "eps": Entry(Real(most=Fraction(1), open_least=True), Fraction(1, 10**8)),
        "weight_decay": Entry(Real(most=Fraction(10**6)), Fraction(0)),
        "decayed": Entry(Patterns(), ()),
        "undecayed": Entry(Patterns(), ()),
        "clip": Entry(Real(open_least=True, none=True)),
        "not_finite": Entry(Choice(("stop", "skip")), "stop"),
        "precision": Entry(Choice(("bf16", "fp32", "fp64")), "fp32"),
        "recompute": Entry(Choice(("none", "selective", "full")), "none"),
        "seed": Entry(Whole(least=0, most=2**63 - 1), 0),
        "initial": Entry(FileName()),
    },
    "communicate": {
        "batch": Entry(Whole(most=1_048_576), 1),
        "overlap": Entry(Flag(), False),
    },
    "hardware": {
        "compute": _amount(FLOP_RATE),
        "memory": _amount(BYTES),
        "memory_bandwidth": _amount(BYTE_RATE),
        "memory_efficiency": _PART,
        "link_bandwidth": _amount(BYTE_RATE),
        "link_peer_bandwidth": _amount(BYTE_RATE),
        "link_latency": _OVERHEAD,
        "link_efficiency": _PART,
        "network_bandwidth": _amount(BYTE_RATE),
        "network_latency": _OVERHEAD,
        "network_efficiency": _PART,
        "collective_latency": _OVERHEAD,
        "ranks_per_node": Entry(Whole(most=1_048_576)),
        "efficiency": _PART,
        "grouped": Entry(Real(most=Fraction(2), open_least=True)),
        "attention_forward": _PART,
        "attention_backward": _PART,
        "attention_depth": _DEPTH,
        "units": Entry(Whole(most=1_048_576)),
        "tile": Entry(Whole(most=1_048_576)),
        "depth": _DEPTH,
        "launch": _OVERHEAD,
        "dispatch": _OVERHEAD,
    },
}

PROCESSORS = ("gpu", "cpu")
"""What an entry of the hardware table may be of."""

REQUIREMENTS: dict[str, Unit] = {
    "memory": BYTES,
    "latency": SECONDS,
    "throughput": TOKEN_RATE,
    "comm_overhead": PLAIN,
    "load_balance": PLAIN,
    "utilization": PLAIN,
    "world": PLAIN,
    "mfu": PLAIN,
    "bubble": PLAIN,
    "step_time": SECONDS,
}

SHARES = ("comm_overhead", "load_balance", "utilization", "mfu", "bubble")
"""Bounds whose values are parts of 1."""

SCHEDULES = ("gpipe", "1f1b")

BLOCKS: dict[str, str] = {
    "model": "model NAME { layers = 16  ... }",
    "mesh": "mesh { tp = 4 }",
    "shard": "shard { heads over tp }",
    "schedule": "schedule 1f1b { batch = 256 }",
    "communicate": "communicate { overlap = true }",
    "train": "train { lr = 3e-4 }",
    "hardware": "hardware h100 { }",
    "require": "require { memory < 64 GiB }",
}
"""The blocks of a plan, and how each is written."""

DIMS = (
    "batch", "seq", "hidden", "heads", "kv_heads", "ffn", "expert_ffn", "experts", "choices", "vocab", "layers",
)  # fmt: skip
"""The logical dims of a described model."""

WEIGHTS: dict[str, tuple[str, ...]] = {
    "the embedding": ("vocab", "hidden"),
    "the query weight": ("heads", "hidden"),
    "the key and value weights": ("kv_heads", "hidden"),
    "the output weight of attention": ("hidden", "heads"),
    "the feed-forward weights": ("ffn", "hidden"),
    "the router's weight": ("choices", "hidden"),
    "the experts' weights": ("experts", "expert_ffn", "hidden"),
}
"""The weights of a described model, as far as two of their dims can go over one axis."""

"""The hardware that a plan names: an entry of the table, with what the plan says otherwise."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

from moec.compiler.cost.read_hardware import WAYS, read_hardware
from moec.dsl.diagnostics import PlanError, plan_error
from moec.dsl.plan import Plan
from moec.dsl.suggest import did_you_mean, listed

Table = Mapping[str, Mapping[str, object]]

DEFAULT = "h100"
"""What is assumed where a plan names no hardware."""

_NUMBERS = (
    *("efficiency", "units", "tile", "depth", "grouped", "attention_depth", "launch", "dispatch"),
    *("memory", "memory_bandwidth", "memory_efficiency"),
    *("link_bandwidth", "link_efficiency", "link_latency", "collective_latency"),
    *("network_bandwidth", "network_efficiency", "network_latency"),
)
"""Fields that are plain numbers in an entry of the table."""

_PRECISIONS = {"bf16": "half", "fp32": "single", "fp64": "double"}
_BYTES = {"float8": 1, "half": 2, "single": 4, "double": 8}


@dataclass(frozen=True, slots=True)
class Machine:
    """One rank's processor with its memory, and how it talks to others. Seconds, bytes, FLOP/s, bytes/s one way."""

    name: str
    title: str
    processor: str
    """gpu or cpu: which operators PyTorch has as one kernel."""
    compute: float
    """FLOP/s of matrix products in the plan's precision, without sparsity."""
    rates: Mapping[int, float]
    """The same by the bytes of an element; of those that are not in it, `compute` is what is known."""
    half_type: str
    """The type of 16 bits that its matrix products have."""
    efficiency: float
    """Of `compute`, by a large matrix product."""
    units: float
    """Multiprocessors: a product is computed in waves of so many tiles."""
    tile: float
    depth: float
    grouped: float
    """Of the rate of a product as large, by products of experts."""
    attention: tuple[float, float]
    """Of the rate of a large product, by fused attention forward and backward over many keys."""
    attention_depth: float
    """Keys that take as long as a forward's start and end; a backward's take twice as long."""
    memory: float
    memory_bandwidth: float
    memory_efficiency: float
    launch: float
    """Of every kernel, on the device."""
    dispatch: float
    """Of every operator, on the host."""
    ranks_per_node: int
    link_bandwidth: float
    """To all other ranks of the node together."""
    link_peer_bandwidth: float
    """To one other rank of the node."""
    link_efficiency: float
    link_latency: float
    collective_latency: float
    network_bandwidth: float
    network_efficiency: float
    network_latency: float
    assumed: tuple[str, ...]
    """What no source says."""
    sources: tuple[str, ...]


def machine_of(plan: Plan, tables: tuple[Path, ...] = ()) -> Machine:
    """The plan's hardware; `tables` are further files of entries. Raises PlanError for what is not known."""
    known = dict(read_table())
    for path in tables:
        known |= read_hardware(path, known, read_table())
    name = plan.hardware.name if plan.hardware else DEFAULT
    said = dict(plan.hardware.fields) if plan.hardware else {}
    if name in known and name != "gpu":
        entry = resolve(name, known)
    elif _missing(said):
        raise _unknown(plan, name, known, said)
    else:
        entry = resolve("gpu", known) | {"title": name}
    missing = [field for field in (*NEEDED, "title") if field not in entry and field not in said]
    if missing:
        label = plan.places["hardware"].label("of which too little is known") if plan.hardware else None
        headline = f"the hardware `{name}` has no {listed(missing, 'or')}"
        raise plan_error("E119", headline, "say it in the plan or in the file", label=label)
    entry |= {field: float(value) for field, value in said.items() if field not in WAYS}
    entry["attention"] = _attention(entry["attention"], said)
    if "link_bandwidth" in said:
        entry.pop("link_peer_bandwidth", None)
    assumed = [field for field in _texts(entry["assumed"]) if field not in said]
    if plan.hardware is None:
        assumed.insert(0, f"the hardware, which the plan does not name: {name}")
    return _machine(name, entry | {"assumed": assumed}, plan.train.precision)


def _attention(parts: object, said: Mapping[str, Fraction]) -> list[float]:
    """Forward and backward, of the table or of the plan."""
    assert isinstance(parts, list), "the table has two parts"
    ways = zip(WAYS, parts, strict=True)
    return [float(said.get(way, part)) for way, part in ways]


@cache
def read_table() -> Table:
    """The table that moec carries."""
    return _read(Path(__file__).with_name("hardware.toml"))


def resolve(name: str, table: Table) -> dict[str, object]:
    """An entry with what it takes over from others; what any of them assumes is assumed unless it says it itself."""
    own = table[name]
    parent = own.get("like", "gpu")
    if name == "gpu":
        return dict(own)
    base = resolve(str(parent), table)
    assumed = [*(field for field in _texts(base.get("assumed")) if field not in own), *_texts(own.get("assumed"))]
    sources = [*_texts(own.get("sources")), *_texts(base.get("sources"))]
    return base | dict(own) | {"assumed": assumed, "sources": sources}


NEEDED = ("compute", "memory", "memory_bandwidth", "link_bandwidth", "network_bandwidth", "ranks_per_node")
"""What a plan must say of hardware that the table does not have."""


def _missing(said: Mapping[str, object]) -> list[str]:
    return [field for field in NEEDED if field not in said]


def _unknown(plan: Plan, name: str, known: Table, said: Mapping[str, object]) -> PlanError:
    names = sorted(entry for entry in known if entry != "gpu")
    return plan_error(
        "E119",
        f"moec does not know the hardware `{name}`",
        *did_you_mean(name, names, "entries of the table"),
        f"or say what it is: {listed(_missing(said))}",
        "or name the file that has it: --hardware FILE",
        label=plan.places["hardware"].label("not in the table"),
    )


def _machine(name: str, entry: Mapping[str, object], precision: str) -> Machine:
    compute, rates = _rates(entry["compute"], precision)
    forward, backward = entry["attention"] if isinstance(entry["attention"], list) else (1.0, 1.0)
    link = _number(entry["link_bandwidth"])
    return Machine(
        name=name,
        title=str(entry["title"]),
        processor=str(entry["processor"]),
        half_type=str(entry.get("half_type", "bf16")),
        compute=compute,
        rates=rates,
        attention=(_number(forward), _number(backward)),
        link_peer_bandwidth=_number(entry.get("link_peer_bandwidth", link)),
        ranks_per_node=int(_number(entry["ranks_per_node"])),
        assumed=tuple(_texts(entry.get("assumed"))),
        sources=tuple(_texts(entry.get("sources"))),
        **{field: _number(entry[field]) for field in _NUMBERS},
    )


def _rates(rates: object, precision: str) -> tuple[float, dict[int, float]]:
    """FLOP/s in the plan's precision, and by the bytes of an element."""
    if not isinstance(rates, dict):
        return _number(rates), {}
    missing = _PRECISIONS[precision] not in rates
    if missing:
        headline = f"the hardware does not say how fast it computes in {precision}"
        raise plan_error("E119", headline, f"give `compute` a rate in {_PRECISIONS[precision]} precision")
    return _number(rates[_PRECISIONS[precision]]), {_BYTES[key]: _number(rate) for key, rate in rates.items()}


def _read(path: Path) -> Table:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _number(value: object) -> float:
    assert isinstance(value, int | float), f"{value!r} is no number"
    return float(value)

"""What the hardware table knows of a machine before it is measured."""

from collections.abc import Mapping
from dataclasses import fields

from moec.compiler.cost.calibrate.order import Order
from moec.compiler.cost.calibrate.timings import Processor
from moec.compiler.cost.machine import DEFAULT, Machine, read_table, resolve

UNKNOWN = "gpu"
"""The name of what holds for all GPUs."""


_SAID = {
    *("name", "title", "processor", "half_type", "efficiency", "memory_efficiency", "attention"),
    *("rates", "ranks_per_node", "assumed", "sources"),
}


def name_in_table(order: Order, processor: Processor) -> str:
    """Of a GPU, the entry whose words all stand in the name that the driver gives it, and the longest of them: a
    GB200 is no B200."""
    if order.device == "cpu":
        return "cpu"
    title = processor.title.lower()
    found = [name for name in read_table() if all(word in title for word in name.split("_"))]
    return max(found, key=len, default=UNKNOWN)


def peaks(name: str) -> Mapping[str, float]:
    """FLOP/s by precision, which a data sheet says of a GPU; what a core of a CPU reaches is measured."""
    rates = resolve(name, read_table()).get("compute")
    return {str(key): float(rate) for key, rate in rates.items()} if name != "cpu" and isinstance(rates, dict) else {}


def start_machine(order: Order, processor: Processor) -> Machine:
    """Numbers as the table has them, until they are measured; what it does not have is 1. Efficiencies are 1."""
    known = resolve(DEFAULT, read_table()) | resolve(name_in_table(order, processor), read_table())
    known |= {"units": processor.units, "memory": processor.memory}
    known.setdefault("link_peer_bandwidth", known["link_bandwidth"])
    numbers = {field.name: _number(known.get(field.name)) for field in fields(Machine) if field.name not in _SAID}
    return Machine(
        name="",
        title=processor.title,
        processor="gpu" if order.device == "cuda" else "cpu",
        half_type="bf16",
        efficiency=1.0,
        memory_efficiency=1.0,
        rates={},
        attention=(1.0, 1.0),
        ranks_per_node=order.ranks,
        assumed=(),
        sources=(),
        **numbers,
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 1.0

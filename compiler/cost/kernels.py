"""What one operator does on one rank, and how long a machine takes for it."""

from dataclasses import dataclass
from math import ceil, sqrt
from typing import Literal, TypeAlias

from moec.compiler.cost.machine import Machine

Kind: TypeAlias = Literal["product", "grouped", "attention", "attention_backward", "memory"]
"""A matrix product; many small ones, a matrix for each expert; fused attention; all else goes through memory."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One operator at one rank's sizes."""

    name: str
    kind: Kind
    flops: float
    moved: int
    """Bytes that it reads and writes."""
    sizes: tuple[int, int, int, int] = (1, 1, 1, 1)
    """Of a product: how many, and the rows, columns and depth of each. Of attention: how many heads, their queries, the
    keys that one of these sees on average, and the size of a head."""
    region: str = ""
    reads: tuple[tuple[int, int], ...] = ()
    """Tensors, by number, with their bytes."""
    writes: tuple[tuple[int, int], ...] = ()
    gradient: bool = False
    """A product that adds to the gradient of a weight."""
    itemsize: int = 0
    """Bytes of an element of what is multiplied; 0: as the plan's precision has it."""

    @property
    def joins(self) -> bool:
        """Whether a compiler of kernels runs it together with what stands beside it."""
        return self.kind == "memory"


def seconds(kernel: Kernel, machine: Machine, float8: bool = False) -> float:
    """On the device: the roofline, with an efficiency that falls for small products."""
    through_memory = kernel.moved / (machine.memory_bandwidth * machine.memory_efficiency)
    if kernel.kind == "memory" or not kernel.flops:  # as of experts without rows
        return through_memory + machine.launch
    itemsize = 1 if float8 and kernel.kind == "product" and kernel.itemsize <= 2 else kernel.itemsize
    rate = machine.rates.get(itemsize, machine.compute)
    slower = min(1.0, rate / machine.compute)
    peak = rate * machine.efficiency
    match kernel.kind:
        case "attention":
            share = machine.attention[0] * passed(kernel.sizes[2], machine.attention_depth)
        case "attention_backward":
            share = machine.attention[1] * passed(kernel.sizes[2], 2 * machine.attention_depth)
        case "grouped":
            share = machine.grouped * fill(kernel.sizes, machine, slower)
        case _:
            share = fill(kernel.sizes, machine, slower)
    return max(kernel.flops / (peak * share), through_memory) + machine.launch


def fill(sizes: tuple[int, int, int, int], machine: Machine, slower: float = 1.0) -> float:
    """The part of the device's best rate that a product of these sizes reaches.

    Tiles at the edges are computed whole; the last wave of tiles leaves units idle, half of them on average; a tile
    takes time to start and to end, as long as `depth` steps of its sum. Elements that are multiplied at a `slower` rate
    than the plan's are in smaller tiles, which take as long.
    """
    count, rows, columns, depth = sizes
    tile = machine.tile * sqrt(slower)
    down, across = ceil(rows / tile), ceil(columns / tile)
    used = rows * columns / (down * across * tile**2)
    waves = count * down * across / machine.units
    return used * waves / (waves + 0.5) * passed(depth, machine.depth * slower)


def passed(steps: float, ends: float) -> float:
    """The part of a kernel's time that is not its start and its end, which take as long as `ends` steps."""
    return steps / (steps + ends)

"""What the memory of a rank is taken by at its peak, of the fullest stage and of the mean stage."""

from collections.abc import Sequence

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.memory import Memory
from moec.compiler.cost.say import size
from moec.compiler.report.breakdown import Cell, Row
from moec.compiler.report.shares import percent, width

NAMES = {
    "weights": "weights and tables",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations of micro-batches that wait for their backward",
    "working": "the micro-batch that is computed",
}


def memory_bytes(memory: Memory) -> dict[str, int]:
    """Of a rank at its peak, by what it is for."""
    held = memory.held
    return {
        "weights": held.weights + held.tables,
        "gradients": held.gradients,
        "optimizer": held.optimizer,
        "activations": memory.activations,
        "working": memory.working,
    }


def fullest_stage(found: Estimate) -> int:
    """The stage whose ranks need the most memory."""
    return max(range(len(found.memory)), key=lambda n: found.memory[n].total)


def memory_rows(found: Estimate) -> tuple[Row, ...]:
    """Their sum, and a line for each thing that memory is for."""
    stages = [memory_bytes(memory) for memory in found.memory]
    parts = [_row(found, kind, name, [stage[kind] for stage in stages]) for kind, name in NAMES.items()]
    return _row(found, "all", "all", [memory.total for memory in found.memory]), *parts


def _row(found: Estimate, kind: str, name: str, stages: Sequence[int]) -> Row:
    whole, mean = found.machine.memory, sum(stages) / len(stages)
    return Row(kind, name, kind == "all", _cell(stages[fullest_stage(found)], whole), _cell(mean, whole))


def _cell(value: float, whole: float) -> Cell:
    return Cell(size(value), percent(value / whole), width(value / whole))

"""What a call of a unit weighs where stages are cut: the FLOPs of its products on one rank, and what the rank sends."""

from math import prod

from moec.compiler.op_flops import op_flops, whole_shape
from moec.compiler.program import Collective, Compute, Joined, Program, Transposed, Unit, Value

FLOPS_A_BYTE = 2000.0
"""What a GPU computes while it sends one byte to its node, in half precision: 1,000 (A100) to 2,500 (B200). A cut has
to be the same on all hardware, and what is nearer than that to the truth would need to know it."""


def weigh_units(program: Program) -> dict[str, float]:
    """Of a forward and a backward, whose products are twice those of the forward."""
    return {name: _Weigher(program, unit).weight() for name, unit in program.units.items()}


class _Weigher:
    """One unit at the sizes of one rank."""

    def __init__(self, program: Program, unit: Unit) -> None:
        self._program, self._unit = program, unit
        graph = program.graphs[unit.graph]
        chosen = [graph.values[op.inputs[1]] for op in graph.ops if op.target == "moec.dispatch"]
        self._choices = sum(prod(whole_shape(value, program.sizes)) for value in chosen[:1])

    def weight(self) -> float:
        return 3.0 * self._flops() + FLOPS_A_BYTE * self._sent()

    def _flops(self) -> float:
        ops = [op for item in self._unit.forward if isinstance(item, Compute) for op in item.ops]
        return sum(op_flops(op, self._unit.values, self._program.sizes, self._shape, self._rows) for op in ops)

    def _sent(self) -> float:
        forward = [(item.move.kind, item) for item in self._unit.forward if isinstance(item, Collective)]
        backward = [
            (move.of.move.backward, move.of)
            for item in self._unit.backward
            for move in (item.moves if isinstance(item, Joined) else (item,) if isinstance(item, Transposed) else ())
        ]
        return sum(self._bytes(kind, item) for kind, item in (*forward, *backward))

    def _bytes(self, kind: str | None, item: Collective) -> float:
        """Of one collective, as a ring sends them: a sum goes around twice, all else once."""
        ends = [self._unit.values[name] for name in (item.source, item.output)]
        size = max(self._elements(value) * value.dtype.itemsize for value in ends)
        ranks = self._program.plan.mesh.size(item.move.axes)
        return _TURNS.get(kind, 0) * size * (ranks - 1) / ranks

    def _elements(self, value: Value) -> float:
        return self._rows(value) * self._shape(value)[-1] if value.ragged else prod(self._shape(value))

    def _shape(self, value: Value) -> list[int]:
        return self._program.local_shape(value)

    def _rows(self, value: Value) -> float:
        """The rows of experts that a rank has of the choices of all, each expert being chosen alike."""
        experts, groups, *_ = value.placement.split
        return self._choices / self._program.plan.mesh.size((*experts, *groups))


_TURNS: dict[str | None, int] = {
    "all_reduce": 2,
    "all_reduce_max": 2,
    **dict.fromkeys(("all_gather", "reduce_scatter", "all_to_all"), 1),
    **dict.fromkeys(("send_rows", "return_rows", "gather_rows", "scatter_rows"), 1),
}
"""How often what is sent goes around the group. What is silent, and counts of rows, weigh nothing."""

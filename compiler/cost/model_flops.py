"""What the model itself computes, whatever the mesh: parameters in use for a token, and FLOPs of a step.

The convention of MFU (Chowdhery et al., PaLM, appendix B): the products of the forward, and twice as much backward;
nothing that is computed again, nothing that is not a product, an embedding is a look-up. Under a causal mask half of
attention's products count. Of experts the rows that tokens choose count, not the room that a capacity leaves.
"""

from dataclasses import dataclass
from math import prod

from moec.compiler.op_flops import op_flops, whole_shape
from moec.compiler.program import Graph, Program, Ref


@dataclass(frozen=True, slots=True)
class Routed:
    """Where a unit chooses experts: sizes of the whole micro-batch."""

    batch: int
    positions: int
    top_k: int
    experts: int
    capacity: int | None
    group: str
    weight: str
    """The value of the first weight that has a matrix for each expert."""


def model_flops(program: Program) -> float:
    """Of a step of the whole model, forward and backward."""
    forward = {name: _forward_flops(program, graph) for name, graph in program.graphs.items()}
    return (
        3.0 * program.plan.schedule.accumulate * sum(forward[program.units[call.unit].graph] for call in program.calls)
    )


def active_parameters(program: Program) -> int:
    """Of the trained parameters those that work on a token: of the experts top_k."""
    shares = {
        (name, weight): (routed.top_k, routed.experts)
        for name, graph in program.graphs.items()
        for routed in [routing_of(program, graph)]
        if routed is not None
        for weight in _expert_weights(graph)
    }
    counts: dict[str, int] = {}
    for call in program.calls:
        unit = program.units[call.unit]
        for parameter in unit.parameters:
            if parameter.trainable:
                name = f"{call.prefix}.{parameter.name}"
                count = prod(int(program.sizes.value(size, 0)) for size in unit.values[parameter.value].shape)
                chosen, of = shares.get((unit.graph, parameter.value), (1, 1))
                counts[program.shared.get(name, name)] = count * chosen // of
    return sum(counts.values())


def routing_of(program: Program, graph: Graph) -> Routed | None:
    """How a unit chooses experts; None if it has none."""
    dispatch = next((op for op in graph.ops if op.target == "moec.dispatch"), None)
    if dispatch is None:
        return None
    expert, experts, capacity, group = dispatch.args[1], *dispatch.args[3:6]
    assert isinstance(expert, Ref)
    batch, positions, top_k = _sizes(program, graph, expert.name)
    room = None if capacity is None else int(program.sizes.value(capacity, 0))  # pyright: ignore[reportArgumentType]
    count = int(program.sizes.value(experts, 0))  # pyright: ignore[reportArgumentType]
    weights = _expert_weights(graph)
    return Routed(batch, positions, top_k, count, room, str(group), weights[0] if weights else "")


def has_experts(program: Program) -> bool:
    return any(routing_of(program, graph) for graph in program.graphs.values())


def _expert_weights(graph: Graph) -> list[str]:
    found = [op.args[1] for op in graph.ops if op.target == "moec.grouped_linear"]
    return [weight.name for weight in found if isinstance(weight, Ref)]


def _forward_flops(program: Program, graph: Graph) -> float:
    routed = routing_of(program, graph)
    rows = routed.batch * routed.positions * routed.top_k if routed else 0
    values, sizes = graph.values, program.sizes
    return sum(op_flops(op, values, sizes, lambda value: whole_shape(value, sizes), lambda _: rows) for op in graph.ops)


def _sizes(program: Program, graph: Graph, name: str) -> list[int]:
    return whole_shape(graph.values[name], program.sizes)

"""Where the layers of a program choose experts, in the order of the model: what a run counts their load by."""

from collections.abc import Iterator

from moec.compiler.program import Compute, Op, Program, Stage, Unit

_DECIDES = ("moec.route", "moec.runtime.routing.choose")
"""Operators that choose experts, of scores [B, S, E]; the second output is the choice, [B, S, K]."""


def routers_of(program: Program, sizing: int) -> list[dict[str, object]]:
    """Name, stage, experts, and choices of a whole step, as plan.json says them."""
    found: list[dict[str, object]] = []
    for stage in program.stages:
        for name, unit, op in _deciding(program, stage):
            *_, experts = _sizes(program, unit, op.inputs[0], sizing)
            batch, positions, top_k = _sizes(program, unit, op.outputs[1], sizing)
            choices = batch * positions * top_k * program.plan.schedule.accumulate
            found.append({"name": name, "stage": stage.index, "experts": experts, "choices": choices})
    return found


def _deciding(program: Program, stage: Stage) -> Iterator[tuple[str, Unit, Op]]:
    """Under the module's path; a second choice in one module has a number, too."""
    for call in stage.calls:
        unit = program.units[call.unit]
        ops = [op for item in unit.forward if isinstance(item, Compute) for op in item.ops if op.target in _DECIDES]
        for n, op in enumerate(ops):
            name = call.prefix or unit.name
            yield f"{name}.{n}" if n else name, unit, op


def _sizes(program: Program, unit: Unit, value: str, sizing: int) -> list[int]:
    return [int(program.sizes.value(size, sizing)) for size in unit.values[value].shape]

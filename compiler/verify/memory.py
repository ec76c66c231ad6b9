"""What a proof at the plan's own sizes would take of this machine's memory."""

import os
from math import prod

from moec.compiler.emit import FULL
from moec.compiler.program import Compute, Program, Shape, Unit
from moec.dsl.diagnostics import plan_error

_DOUBLE = 8
_COPIES = 4  # of a weight: value, gradient, and two moments


def check_memory(program: Program) -> None:
    """Raise PlanError if the least that the proof needs is more than what is free."""
    needed, free = least_bytes(program), free_bytes()
    if needed > free:
        headline = (
            f"{program.plan.name} at its own sizes takes at least {_said(needed)} here, and {_said(free)} are free"
        )
        help = "leave --exact-shape out: the same programs are run at small sizes"
        raise plan_error("E117", headline, help, "or make the plan smaller, such as --set model.layers=2")


def least_bytes(program: Program) -> int:
    """Weights with gradients and moments on every rank and once more in the reference, and what flows in the reference.

    All in float64. Activations of the ranks come on top, and are about those of the reference times the ranks that do
    the same work.
    """
    mesh = program.plan.mesh
    whole = {name: _count(program, value.shape) for name, _, value in program.weights(program.calls)}
    held = 0
    for stage in program.stages:
        parts = {name: prod(program.local_shape(value)) for name, _, value in program.weights(stage.calls)}
        held += sum(parts.values()) * (mesh.world_size // len(program.stages))
    flows = sum(_flow(program, program.units[call.unit]) for call in program.calls)
    return _DOUBLE * (_COPIES * (held + sum(whole.values())) + flows)


def _flow(program: Program, unit: Unit) -> int:
    """Elements that the operators of a unit make for one micro-batch."""
    ops = [op for item in unit.forward if isinstance(item, Compute) for op in item.ops]
    return sum(_count(program, unit.values[name].shape) for op in ops for name in op.outputs)


def free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _count(program: Program, shape: Shape) -> int:
    return prod(int(program.sizes.value(size, FULL)) for size in shape)


def _said(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"

"""Which lines of the plan make ranks talk: for a message at run time that names the plan line of an instruction."""

from collections.abc import Iterable
from pathlib import Path

from moec.compiler.emit.stage_text import family_of
from moec.compiler.program import Collective, Program, Stage, full_name
from moec.dsl.source import Place


def plan_lines(program: Program) -> dict[str, object]:
    """The plan's file; for each group that an instruction names, the `shard` lines over its axes; and the model's.

    A group over an axis talks because of the lines that put dims on that axis, and for no other reason.
    """
    plan = program.plan
    groups = {name: _shard_lines(program, axes) for name, axes in _groups(program).items()}
    stages = plan.mesh.atoms_of(plan.pipeline_axis) if plan.pipeline_axis else ()
    model = [_line(program, plan.model.place)] if plan.model.place else []
    return {
        "file": Path(program.plan.source.path).name,
        "groups": groups,
        "stages": _shard_lines(program, stages),
        "model": [line for line in model if line],
    }


def _groups(program: Program) -> dict[str, tuple[str, ...]]:
    """Groups that the stages' files name, with the atoms of the mesh that they are over."""
    found = {}
    for unit in program.units.values():
        for item in unit.forward:
            if isinstance(item, Collective):
                found[program.plan.mesh.name(item.move.axes)] = item.move.axes
    for stage in program.stages:
        found |= _families(program, stage)
    return dict(sorted(found.items()))


def _families(program: Program, stage: Stage) -> dict[str, tuple[str, ...]]:
    """Groups over which gradients are summed; of a weight of several stages, over their axis too."""
    pipeline = program.plan.pipeline_axis
    found = {}
    for call in stage.calls:
        for parameter in program.units[call.unit].parameters:
            family = family_of(program, parameter.summed, full_name(call.prefix, parameter.name))
            if family is not None:
                stages = program.plan.mesh.atoms_of(pipeline) if pipeline and family.stages else ()
                found[family.name] = (*family.axes, *stages)
    return found


def _shard_lines(program: Program, atoms: Iterable[str]) -> list[int]:
    """Lines of `shard` that put a dim on any of these."""
    mesh, wanted = program.plan.mesh, set(atoms)
    names = {axis.name for axis in mesh.axes}
    lines = set()
    for shard in program.plan.shard:
        over = {atom for axis in shard.axes for atom in (mesh.atoms_of(axis) if axis in names else (axis,))}
        if shard.place and over & wanted:
            lines.add(_line(program, shard.place))
    return sorted(line for line in lines if line)


def _line(program: Program, place: Place) -> int:
    """Its number in the plan's file, from 1; 0 for what was said elsewhere, such as on the command line."""
    if place.source.path != program.plan.source.path:
        return 0
    return place.source.text.count("\n", 0, place.span.start) + 1

"""The pipeline's stages: which ranks and layers they are, what they hold, and where their time goes."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.say import seconds, size
from moec.compiler.program import Call, Program, Stage
from moec.compiler.report.kinds import Part, kinds_of, parts_of
from moec.compiler.report.memory_rows import memory_bytes
from moec.compiler.report.shares import percent, width


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage, in finished words."""

    number: int
    ranks: str
    layers: str
    forward: str
    backward: str
    time: tuple[Part, ...]
    memory: tuple[Part, ...]
    peak: str
    micro_batches: int
    """Under way at the peak."""


def stage_rows(found: Estimate) -> tuple[StageRow, ...]:
    """All stages, first to last."""
    return tuple(_row(found, n) for n in range(len(found.ranks)))


def ranks_text(program: Program, rank: int) -> str:
    """The ranks that share a stage with this one."""
    mesh, axis = program.plan.mesh, program.plan.pipeline_axis
    ranks = sorted(mesh.group(rank, tuple(atom.name for atom in mesh.atoms if atom.name != axis)))
    if len(ranks) == 1:
        return f"rank {rank}"
    if ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"ranks {ranks[0]} to {ranks[-1]}"
    steps = {after - before for before, after in pairwise(ranks)}
    every = f", every {min(steps)}th" if len(steps) == 1 else ""
    return f"{len(ranks)} ranks from {ranks[0]} to {ranks[-1]}{every}"


def layers_text(stage: Stage) -> str:
    """The modules of a stage in order: `embed, layers.0 to layers.3`."""
    return ", ".join(_names(stage))


def _names(stage: Stage) -> Iterator[str]:
    for loop in stage.loops:
        calls = [call for turn in loop.turns for call in turn]
        if len(loop.turns) == 1:
            yield from (_name(call) for call in calls)
        else:
            yield f"{_name(calls[0])} to {_name(calls[-1])}"


def _name(call: Call) -> str:
    return call.prefix or call.unit


def _row(found: Estimate, n: int) -> StageRow:
    stage, memory = found.time.stages[n], found.memory[n]
    return StageRow(
        n,
        ranks_text(found.program, stage.rank),
        layers_text(found.program.stages[n]),
        seconds(stage.forward.seconds),
        seconds(stage.backward.seconds),
        parts_of(kinds_of(stage), found.step_seconds),
        _memory_parts(memory_bytes(memory), max(found.machine.memory, found.memory_bytes)),
        size(memory.total),
        memory.micro_batches,
    )


def _memory_parts(parts: dict[str, int], whole: float) -> tuple[Part, ...]:
    return tuple(
        Part(kind, width(value / whole), f"{kind} {size(value)}, {percent(value / whole)}")
        for kind, value in parts.items()
        if value
    )

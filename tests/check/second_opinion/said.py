"""What moec says of every collective in a stage's text, and of what its regions read and make: from the program."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from moec.compiler.emit import stage_text
from moec.compiler.emit.sizes_text import SizeNames
from moec.compiler.emit.unit_text import JOINED, MOVES
from moec.compiler.placement import Placement
from moec.compiler.program import Collective, Compute, Joined, Program, Stage, Transposed, Unit


@dataclass(frozen=True, slots=True)
class Crossing:
    """The types of the operand and of the result of one collective."""

    before: Placement
    after: Placement


@dataclass(frozen=True, slots=True)
class Said:
    """Of a stage's emitted text: by line the crossings of its call, by name of the function the region and its unit."""

    lines: tuple[str, ...]
    crossings: Mapping[int, tuple[Crossing, ...]]
    regions: Mapping[str, tuple[Compute, Unit]]

    def line_of(self, lines: Sequence[str]) -> Mapping[int, int]:
        """Lines of a text that was changed -> those of the emitted one; a new line is taken for the one before it."""
        found: dict[int, int] = {}
        for _, a, b, c, d in SequenceMatcher(None, self.lines, lines, autojunk=False).get_opcodes():
            found |= {c + n + 1: min(a + n, max(a, b - 1)) + (a != b) for n in range(d - c)}
        return found


def said_of(program: Program, stage: Stage, text: str) -> Said:
    written = stage_text(program, SizeNames(program), stage)
    units = [program.units[name] for name in dict.fromkeys(call.unit for call in stage.calls)]
    calls = _calls(text)
    crossings: dict[int, tuple[Crossing, ...]] = {}
    regions: dict[str, tuple[Compute, Unit]] = {}
    for unit, own in zip(units, written.texts, strict=True):
        forward = [(_forward(unit, item),) for item in unit.forward if _talks(item)]
        crossings |= zip(calls.get(own.forward.name, []), forward, strict=True)
        backward = [_backward(unit, item) for item in unit.backward if isinstance(item, Transposed | Joined)]
        if own.backward is not None:
            crossings |= zip(calls.get(own.backward.name, []), backward, strict=True)
        computes = [item for item in unit.forward if isinstance(item, Compute)]
        regions |= {own.region_names[item.name]: (item, unit) for item in computes}
    if program.counter is not None and written.counter:
        (compute,) = [item for item in program.counter.forward if isinstance(item, Compute)]
        regions[written.counter] = compute, program.counter
    return Said(tuple(text.splitlines()), crossings, regions)


def _calls(text: str) -> Mapping[str, list[int]]:
    """Lines of the collectives in every function, in order."""
    found: dict[str, list[int]] = {}
    for function in ast.parse(text).body:
        if isinstance(function, ast.FunctionDef):
            found[function.name] = sorted(
                node.lineno
                for node in ast.walk(function)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in (*MOVES, JOINED)
            )
    return found


def _talks(item: object) -> bool:
    return isinstance(item, Collective) and item.move.kind not in ("share", "keep")


def _forward(unit: Unit, item: object) -> Crossing:
    assert isinstance(item, Collective)
    return Crossing(unit.values[item.source].placement, unit.values[item.output].placement)


def _backward(unit: Unit, item: Transposed | Joined) -> tuple[Crossing, ...]:
    moves = item.moves if isinstance(item, Joined) else (item,)
    forward = [_forward(unit, move.of) for move in moves]
    return tuple(Crossing(of_gradient(way.after), of_gradient(way.before)) for way in forward)


def of_gradient(placement: Placement) -> Placement:
    """The type of a value's gradient: what is replicated gives summands, and the other way round."""
    return replace(placement, partial=placement.replicated, replicated=placement.partial, highest=())

"""Do a stage's tables say of weights and of what arrives from other stages what the program says?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from moec.compiler.check.execute import StageText
from moec.compiler.check.faults import Fault
from moec.compiler.emit.expressions import dtype_text
from moec.compiler.emit.stage_text import StageText as Written
from moec.compiler.program import Program, Stage, Value
from moec.runtime.communicator import Slot
from moec.runtime.shard import Weight


def check_tables(program: Program, written: Sequence[Written], stages: Sequence[StageText]) -> Iterator[Fault]:
    """All that is stated of weights but the sum of their gradients; which layers there are; what is received."""
    for stage, text, own in zip(program.stages, written, stages, strict=True):
        yield from _weights(text, own)
        if tuple(own.tables.get("UNITS", ())) != text.units:  # pyright: ignore[reportArgumentType]
            yield Fault("tables", f"UNITS are not those of the program, {text.units}", own.line_of("UNITS = "))
        yield from _inputs(text, own)
        yield from _slots(program, stage, own)


def _weights(text: Written, own: StageText) -> Iterator[Fault]:
    """How a gradient is summed is left to those who find it out from what the ranks do."""
    tables: Mapping[str, Mapping[str, Weight]] = own.tables["WEIGHTS"]  # pyright: ignore[reportAssignmentType]
    names = {**vars(own.sizes), "Weight": Weight}
    for unit, rows in text.weights.items():
        for key, row in rows:
            true: Weight = eval(row, dict(names))  # the emitter's own text
            mine = tables.get(unit, {}).get(key)
            if mine is None or replace(mine, reduce="") != replace(true, reduce=""):
                yield Fault("tables", f"{unit}.{key} is not {row}", own.line_of(f'"{key}": Weight('))
    stacks: Mapping[str, Mapping[str, Sequence[str]]] = own.tables.get("STACKED", {})  # pyright: ignore[reportAssignmentType]
    for unit, stacked in text.stacked.items():
        for key, parts in stacked:
            if tuple(stacks.get(unit, {}).get(key, ())) != parts:
                yield Fault("tables", f"{unit}.{key} is not {', '.join(parts)}", own.line_of(f'"{key}": ('))


def _inputs(text: Written, own: StageText) -> Iterator[Fault]:
    splits: Mapping[str, object] = own.tables.get("INPUTS", {})  # pyright: ignore[reportAssignmentType]
    for name, split in text.inputs:
        if repr(splits.get(name)) != split:
            yield Fault(
                "tables",
                f"input {name} is split as {splits.get(name)}, and is read as {split}",
                own.line_of(f'"{name}": ('),
            )


def _slots(program: Program, stage: Stage, own: StageText) -> Iterator[Fault]:
    arriving = {
        "ACTIVATIONS_IN": [program.values[name] for name in stage.received],
        "GRADIENTS_IN": [program.values[name] for name in stage.sent if program.values[name].differentiable],
    }
    for table, values in arriving.items():
        slots: Sequence[Slot] = own.tables.get(table, ())  # pyright: ignore[reportAssignmentType]
        mine = [(tuple(slot.shape), slot.dtype) for slot in slots]
        true = [(tuple(program.local_shape(value)), _dtype(own, value)) for value in values]
        if mine != true:
            yield Fault("tables", f"{table} are {mine}, and {true} arrive", own.line_of(table))


def _dtype(own: StageText, value: Value) -> torch.dtype:
    return getattr(own.sizes, dtype_text(value.dtype), value.dtype)

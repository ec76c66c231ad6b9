"""Do a stage's tables say of weights and of what arrives from other stages what the program says?"""

from collections.abc import Iterator, Mapping, Sequence

import torch

from moec.compiler.check.execute import StageText
from moec.compiler.check.faults import Fault
from moec.compiler.check.terms import Site
from moec.compiler.emit.stage_text import StageText as Written
from moec.compiler.program import Program, Stage, Value
from moec.runtime.communicator import Slot
from moec.runtime.shard import Weight


def check_tables(program: Program, written: Sequence[Written], stages: Sequence[StageText]) -> Iterator[Fault]:
    """Names, shapes and splits of weights; shapes and types of tensors that are received."""
    for stage, text, own in zip(program.stages, written, stages, strict=True):
        tables: Mapping[str, Mapping[str, Weight]] = own.tables["WEIGHTS"]  # pyright: ignore[reportAssignmentType]
        units = [program.units[name] for name in dict.fromkeys(call.unit for call in stage.calls)]
        for unit, rows in zip(units, text.texts, strict=True):
            for parameter in unit.parameters:
                value = unit.values[parameter.value]
                key = rows.keys[parameter.value]
                weight = tables.get(unit.name, {}).get(key)
                if weight is None:
                    yield Fault("slices", f"WEIGHTS lacks {unit.name}.{key}", Site(own.name, 1))
                    continue
                shape = tuple(int(program.sizes.value(size, 0)) for size in value.shape)
                true = (parameter.name, shape, value.placement.split)
                mine = (weight.name, weight.shape, weight.split)
                if mine != true:
                    yield Fault(
                        "slices",
                        f"{unit.name}.{key} is {mine}, and the program has {true}",
                        own.line_of(f'"{key}": Weight('),
                    )
            stacks: Mapping[str, Sequence[str]] = own.tables.get("STACKED", {}).get(unit.name, {})  # pyright: ignore
            for stack in unit.stacked:
                key, parts = rows.keys[stack.value], tuple(rows.keys[part] for part in stack.parts)
                if tuple(stacks.get(key, ())) != parts:
                    yield Fault("slices", f"{unit.name}.{key} is not {', '.join(parts)}", own.line_of(f'"{key}": ('))
        yield from _inputs(text, own)
        yield from _slots(program, stage, own)


def _inputs(text: Written, own: StageText) -> Iterator[Fault]:
    splits: Mapping[str, object] = own.tables.get("INPUTS", {})  # pyright: ignore[reportAssignmentType]
    for name, split in text.inputs:
        if repr(splits.get(name)) != split:
            yield Fault(
                "slices",
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
            yield Fault("meeting", f"{table} are {mine}, and {true} arrive", own.line_of(table))


def _dtype(own: StageText, value: Value) -> torch.dtype:
    named = {torch.bfloat16: "DTYPE", torch.float32: "FLOAT"}.get(value.dtype)
    return getattr(own.sizes, named) if named else value.dtype

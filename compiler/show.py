"""Prints the program as text: units with their regions, collectives and backward, stages, schedules.

Sizes are formulas over the plan's symbols; DTYPE is the plan's precision, and FLOAT is single where that is half. A
value's type says on which axes it is S (split), P (a summand) or R (the same, used differently); on others it is the
same everywhere.
"""

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import assert_never

import torch
from sympy import Expr

from moec.compiler.emit.expressions import dtype_text
from moec.compiler.emit.types_text import letters, type_text
from moec.compiler.pipeline import PASSES, compile_plan
from moec.compiler.program import (
    Accumulate,
    Add,
    Argument,
    Backward,
    Call,
    Collective,
    Compute,
    Graph,
    Group,
    Joined,
    Loop,
    Op,
    Part,
    Program,
    Ref,
    Reverse,
    Stage,
    Transposed,
    Unit,
    Value,
)
from moec.compiler.show_weights import axes_text, show_weights
from moec.dsl.diagnostics import plan_error
from moec.dsl.plan import Plan
from moec.dsl.suggest import listed

__all__ = ["show_after", "show_program", "show_weights"]

WIDTH = 120


def show_after(plan: Plan, pass_name: str) -> str:
    """The program of a plan as it is after a pass; raises PlanError for a name that is no pass."""
    names = ("split_model", *(each.__name__ for each in PASSES))
    if pass_name not in names:
        headline = f"`{pass_name}` is not a pass of the compiler"
        raise plan_error("E115", headline, f"in order, they are {listed(names)}")
    return show_program(compile_plan(plan, until=pass_name))


def show_program(program: Program) -> str:
    """All that the emitter writes down; what a pass has not made yet is left out."""
    lines = [*_header(program)]
    if program.tables is not None and program.tables.ops:
        lines += ["", "tables, which need neither weights nor data", *_indented(_graph(program.tables))]
    if program.units:
        units = [*program.units.values(), *([program.counter] if program.counter else [])]
        for unit in units:
            lines += ["", *_unit(program, unit)]
    else:
        for name, graph in program.graphs.items():
            lines += ["", f"graph {name}({', '.join(graph.inputs)})", *_indented(_graph(graph))]
    if program.stages:
        for stage in program.stages:
            lines += ["", *_stage(program, stage)]
    else:
        lines += ["", "chain", *_indented(_call(call) for call in program.calls)]
    return "\n".join(lines) + "\n"


def _header(program: Program) -> Iterator[str]:
    plan = program.plan
    axes = "  ".join(f"{atom.name} {atom.size}" for atom in plan.mesh.atoms)
    yield f"program {plan.name}  mesh {axes}  {program.world_size} ranks"
    yield ""
    yield "sizes"
    sizes = {name: str(size) for name, size in program.sizes.sizings[0].items()}
    sizes |= {symbol.name: f"{values[0]:g}" for symbol, values in program.sizes.opaque.items()}
    yield from _filled([f"{name} {size}" for name, size in sizes.items()], "  ", "  ")


def _graph(graph: Graph) -> Iterator[str]:
    for value, name in graph.weights:
        yield f"{value} = weight {name} : {_shape(graph.values[value])}"
    for op in graph.ops:
        yield f"{_op(op)} : {', '.join(_shape(graph.values[name]) for name in op.outputs)}"
    yield f"-> {', '.join(graph.outputs)}"


def _unit(program: Program, unit: Unit) -> Iterator[str]:
    calls = [call.prefix for call in program.calls if call.unit == unit.name and call.prefix]
    where = f"  {_span(calls)}" if calls else ""
    yield f"unit {unit.name}({', '.join(unit.inputs)}) -> {', '.join(unit.outputs)}{where}"
    for name in unit.inputs:
        yield f"  {name} = input : {_typed(program, unit, name)}"
    for weight in unit.parameters:
        kind = "weight" if weight.trainable else "buffer"
        summed = f"  gradient summed over {axes_text(program.plan.mesh, weight.summed)}" if weight.summed else ""
        yield f"  {weight.value} = {kind} {weight.name} : {_typed(program, unit, weight.value)}{summed}"
    yield "  forward"
    for item in unit.forward:
        if isinstance(item, Compute):
            yield from _indented(_region(program, unit, item), 2)
        else:
            yield f"    {_collective(program, unit, item)}"
    if unit.backward:
        seeds = [name for name in unit.seeds if name]
        made = ", ".join(name for _, name in unit.gradients) or "of weights alone"
        yield f"  backward({', '.join(seeds)}) -> {made}"
        yield from _indented((_reverse(program, unit, item) for item in unit.backward), 2)


def _region(program: Program, unit: Unit, region: Compute) -> Iterator[str]:
    yield f"region {region.name}({', '.join((*region.inputs, *region.weights))}) -> {', '.join(region.outputs)}"
    for op in region.ops:
        kinds = dict.fromkeys(_typed(program, unit, name) for name in op.outputs)
        yield f"  {_op(op)} : {'; '.join(kinds)}"


def _collective(program: Program, unit: Unit, item: Collective) -> str:
    move = item.move
    source, output = unit.values[item.source], unit.values[item.output]
    before, after = (letters(program, value.placement, move.axes, value) for value in (source, output))
    silent = ", silent" if move.silent else ""
    reason = f", {item.reason}" if item.reason else ""
    axes = axes_text(program.plan.mesh, move.axes)
    change = f" : {before} -> {after}" if before != after else ""
    return f"{item.output} = {move.kind}({item.source}) over {axes}{change}{silent}{reason}"


def _reverse(program: Program, unit: Unit, item: Reverse) -> str:
    match item:
        case Backward(region=region, gradients=gradients, outputs=outputs):
            given = ", ".join(name or "zeros" for name in gradients)
            made = f"{', '.join(outputs)} = " if outputs else ""
            return f"{made}backward of region {region}({given})"
        case Transposed(of=collective, source=source, output=output):
            move = collective.move
            axes = axes_text(program.plan.mesh, move.axes)
            return f"{output} = {move.backward}({source}) over {axes} : {move.kind} of {collective.source}, transposed"
        case Joined(moves=moves):
            return f"together: {'; '.join(_reverse(program, unit, move) for move in moves)}"
        case Add(terms=terms, output=output):
            return f"{output} = {' + '.join(terms)}"
        case Accumulate(weight=weight, source=source):
            return f"gradient of {weight} += {source}"
        case _:
            assert_never(item)


def _stage(program: Program, stage: Stage) -> Iterator[str]:
    yield f"stage {stage.index} of {len(program.stages)}"
    if stage.received:
        yield f"  receives {', '.join(stage.received)}"
    for loop in stage.loops:
        yield from _indented(_loop(loop))
    if stage.sent:
        yield f"  sends {', '.join(stage.sent)}"
    if stage.schedule:
        yield f"  schedule, {1 + max(step.index for step in stage.schedule)} micro-batches"
        yield from _filled([f"{step.kind} {step.index}" for step in stage.schedule], "    ", ", ")


def _loop(loop: Loop) -> Iterator[str]:
    if len(loop.turns) == 1:
        yield from (_call(call) for call in loop.body)
        return
    prefixes = [call.prefix for turn in loop.turns for call in turn]
    yield f"{len(loop.turns)} turns, {_span(prefixes)}, each from the outputs of the one before"
    yield from _indented(_call(call) for call in loop.body)


def _call(call: Call) -> str:
    prefix = f"  {call.prefix}" if call.prefix else ""
    return f"{', '.join(call.outputs)} = {call.unit}({', '.join(call.inputs)}){prefix}"


def _span(prefixes: Sequence[str]) -> str:
    return prefixes[0] if len(prefixes) == 1 else f"{prefixes[0]} to {prefixes[-1]}"


def _op(op: Op) -> str:
    arguments = [_argument(value) for value in op.args]
    arguments += [f"{name}={_argument(value)}" for name, value in op.kwargs]
    return f"{', '.join(op.outputs)} = {op.target}({', '.join(arguments)})"


def _argument(value: Argument) -> str:
    match value:
        case Ref(name=name):
            return name
        case Group(axes=axes):
            return f"group {', '.join(axes)}"
        case Part(size=size, axes=axes):
            return f"{size} / ({', '.join(axes)})"
        case tuple():
            return f"({', '.join(_argument(item) for item in value)}{',' if len(value) == 1 else ''})"
        case torch.dtype():
            return _dtype(value)
        case Expr():
            return str(value)
        case _:
            return repr(value)


def _typed(program: Program, unit: Unit, name: str) -> str:
    value = unit.values[name]
    types = type_text(program, value)
    return _shape(value) if types == "I" else f"{_shape(value)} {types}"


def _shape(value: Value) -> str:
    sizes = [str(size) for size in value.shape]
    if value.ragged:
        sizes = ["rows", *sizes[-1:]]
    return f"{_dtype(value.dtype)}[{', '.join(sizes)}]"


def _dtype(dtype: torch.dtype) -> str:
    """As the emitted text says it: the plan's precision, and what is always at least single, have names."""
    return dtype_text(dtype).removeprefix("torch.")


def _indented(lines: Iterator[str], levels: int = 1) -> Iterator[str]:
    return (f"{'  ' * levels}{line}" for line in lines)


def _filled(words: Sequence[str], indent: str, separator: str) -> Iterator[str]:
    """Words in lines, never broken within one."""
    joined = separator.join(word.replace(" ", "\0") for word in words)
    for line in wrap(joined, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False):
        yield line.replace("\0", " ")

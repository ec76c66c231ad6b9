"""Cuts the chain of calls into stages of balanced weight, and finds the loops in each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from moec.compiler.cut_evenly import cut_evenly
from moec.compiler.program import Call, Loop, Program, Stage, full_name
from moec.compiler.unique import unique
from moec.compiler.weigh_units import weigh_units
from moec.dsl.diagnostics import plan_error


def partition_stages(program: Program, weigh: Callable[[Program], Mapping[str, float]] = weigh_units) -> Program:
    """Stages, with what crosses between them and the weights that several of them have.

    `weigh` gives what a call of each unit weighs.

    Requires: typed units.
    Ensures:  every call is in one stage; of several stages, each has an element of a module list; what a later stage
              reads is handed on by all between.
    """
    axis = program.plan.pipeline_axis
    count = program.plan.mesh.axis(axis).size if axis else 1
    cuts = _cuts(program, count, weigh(program))
    pieces = [program.calls[start:end] for start, end in zip((0, *cuts), (*cuts, len(program.calls)), strict=True)]
    spans = _spans(pieces, program)
    program, pieces = _set_apart(program, pieces, spans)
    stages = []
    fixed = {name for name, value in program.values.items() if not value.differentiable}
    for index, calls in enumerate(pieces):
        received = _crossing(program, pieces, index)
        sent = _crossing(program, pieces, index + 1) if index + 1 < count else ()
        later = {name for piece in pieces[index + 1 :] for call in piece for name in call.inputs}
        stages.append(Stage(index, calls, find_loops(calls, later | {program.loss}, fixed), received, sent))
    calls = tuple(call for piece in pieces for call in piece)
    return replace(program, calls=calls, stages=tuple(stages), spans=spans)


def _cuts(program: Program, count: int, by_unit: Mapping[str, float]) -> tuple[int, ...]:
    """Where stages begin, but for the first: with an element of a list, where that is most even."""
    calls = program.calls
    places = [n for n, call in enumerate(calls) if call.repeated]
    if count > 1 and len(places) < count:
        label = program.plan.label("shard.layers")
        help = "a stage is made of elements of a ModuleList, or of a Sequential or ModuleDict of layers"
        headline = f"the model has {len(places)} layers in lists of modules, and {count} stages are asked for"
        raise plan_error("E411", headline, help, label=label)
    weights = [by_unit[call.unit] for call in calls]
    least = max(weights) * 1e-6 + 1.0  # of calls that weigh nothing, each stage has as many
    return cut_evenly([weight + least for weight in weights], places[1:], count)


def _crossing(program: Program, pieces: Sequence[Sequence[Call]], boundary: int) -> tuple[str, ...]:
    """What stages before the boundary make and those after it read, in the order in which it is made."""
    if boundary == 0:
        return ()
    made = [name for piece in pieces[:boundary] for call in piece for name in call.outputs]
    read = {name for piece in pieces[boundary:] for call in piece for name in call.inputs}
    return tuple(name for name in made if name in read)


def _spans(pieces: Sequence[Sequence[Call]], program: Program) -> dict[str, tuple[int, ...]]:
    """Weights that calls of several stages have: their stages."""
    stages: dict[str, list[int]] = {}
    for index, piece in enumerate(pieces):
        for name, _, _ in program.weights(piece):
            found = stages.setdefault(name, [])
            if index not in found:
                found.append(index)
    return {name: tuple(found) for name, found in stages.items() if len(found) > 1}


def _set_apart(
    program: Program, pieces: Sequence[Sequence[Call]], spans: Mapping[str, tuple[int, ...]]
) -> tuple[Program, list[tuple[Call, ...]]]:
    """Calls whose weights are on other stages than those of their unit's first call get a unit of their own."""
    units = dict(program.units)
    names: dict[tuple[str, tuple[tuple[int, ...], ...]], str] = {}
    found: list[tuple[Call, ...]] = []
    for piece in pieces:
        calls: list[Call] = []
        for call in piece:
            unit = program.units[call.unit]
            key = call.unit, tuple(spans.get(full_name(call.prefix, p.name), ()) for p in unit.parameters)
            if key not in names:
                first = all(other != call.unit for other, _ in names)
                names[key] = call.unit if first else unique(call.unit, units)
                units[names[key]] = replace(unit, name=names[key])
            calls.append(replace(call, unit=names[key]))
        found.append(tuple(calls))
    return replace(program, units=units), found


def find_loops(calls: Sequence[Call], read_later: set[str], fixed: set[str]) -> tuple[Loop, ...]:
    """The calls as loops: the longest repetition from every place on, or single calls.

    What all turns read from outside is `fixed`: it has no gradient.
    """
    loops: list[Loop] = []
    place = 0
    while place < len(calls):
        best = (1, 1)
        for period in range(1, (len(calls) - place) // 2 + 1):
            turns = 1
            while _continues(calls, place, period, turns, fixed) and _closed(
                calls, place, period, turns + 1, read_later
            ):
                turns += 1
            if turns > 1 and period * turns > best[0] * best[1]:
                best = (period, turns)
        period, turns = best
        chunk = [calls[place + turn * period : place + (turn + 1) * period] for turn in range(turns)]
        loops.append(Loop(tuple(tuple(turn) for turn in chunk)))
        place += period * turns
    return tuple(loops)


def _continues(calls: Sequence[Call], start: int, period: int, turn: int, fixed: set[str]) -> bool:
    """Is the next turn like those before: the same units, wired the same way?"""
    begin = start + turn * period
    if begin + period > len(calls):
        return False
    for offset in range(period):
        first, this = calls[start + offset], calls[begin + offset]
        if this.unit != first.unit or not (this.repeated and first.repeated):
            return False
    wiring = [_wiring(calls, start + t * period, period) for t in range(turn + 1)]
    for place, now in enumerate(wiring[-1]):
        then = wiring[1][place] if turn > 1 else None
        if then is not None and now != then:
            return False
        if now[0] == "previous":
            if wiring[0][place][0] not in ("outer", "previous"):
                return False
        elif now != wiring[0][place] or (now[0] == "outer" and now[1] not in fixed):
            return False
    return True


def _wiring(calls: Sequence[Call], begin: int, period: int) -> list[tuple[object, ...]]:
    """Where each input of a turn comes from: this turn, the one before, or outside."""
    here = {name: (o, n) for o in range(period) for n, name in enumerate(calls[begin + o].outputs)}
    before = {}
    if begin >= period:
        before = {name: (o, n) for o in range(period) for n, name in enumerate(calls[begin - period + o].outputs)}
    found: list[tuple[object, ...]] = []
    for offset in range(period):
        for name in calls[begin + offset].inputs:
            if name in here:
                found.append(("this", *here[name]))
            elif name in before:
                found.append(("previous", *before[name]))
            else:
                found.append(("outer", name))
    return found


def _closed(calls: Sequence[Call], start: int, period: int, turns: int, read_later: set[str]) -> bool:
    """Does nothing outside the loop read what a turn but the last makes?"""
    inner = calls[start : start + period * (turns - 1)]
    made = {name for call in inner for name in call.outputs}
    outside = {name for call in calls[start + period * turns :] for name in call.inputs} | read_later
    skipping = False
    for turn in range(2, turns):
        names = {name for call in calls[start : start + period * (turn - 1)] for name in call.outputs}
        skipping |= any(names & set(call.inputs) for call in calls[start + turn * period : start + (turn + 1) * period])
    return not (made & outside) and not skipping

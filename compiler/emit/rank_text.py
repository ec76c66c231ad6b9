"""A rank's file: what differs from other ranks of its stage, and its schedule, as a person would write it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from moec.compiler.emit.stage_text import StageText
from moec.compiler.emit.types_text import same_axes
from moec.compiler.placement import Axes
from moec.compiler.program import Collective, Compute, Group, Instruction, Program, Stage, Unit, Value

_LINES: dict[str, str] = {
    "receive": "x = run.receive(stage.ACTIVATIONS_IN, PREVIOUS)",
    "send": "run.send(y, NEXT)",
    "receive_back": "dy = run.receive(stage.GRADIENTS_IN, NEXT)",
    "send_back": "run.send(dx, PREVIOUS)",
    "forth": "dy = run.exchange(y, stage.GRADIENTS_IN, NEXT)",
    "back": "x = run.exchange(dx, stage.ACTIVATIONS_IN, PREVIOUS)",
}


@dataclass(slots=True)
class RankWriter:
    """Writes the files of all ranks of one stage."""

    program: Program
    stage: Stage
    text: StageText
    sizing: int
    _groups: list[tuple[str, Axes, tuple[int, ...]]] = field(init=False)
    _slices: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)
    _group_texts: dict[tuple[Axes, tuple[int, ...], int], str] = field(default_factory=dict)  # by the first member

    def __post_init__(self) -> None:
        self._groups = groups_of(self.program, self.stage, self.text)

    def context(self, rank: int) -> dict[str, object]:
        """What the template shows of one rank."""
        mesh = self.program.plan.mesh
        at = mesh.coordinates(rank)
        axes = {atom.name: atom.size for atom in mesh.atoms}
        pipeline = self.program.plan.pipeline_axis
        stride = self._stage_stride()
        first, last = self.stage.index == 0, self.stage.index == len(self.program.stages) - 1
        return {
            "rank": rank,
            "place": ", ".join(f"{name} {number}" for name, number in at.items()),
            "coordinates": _dict_text(at),
            "axes": _dict_text(axes),
            "groups": [(name, self._group_text(rank, axes, stages)) for name, axes, stages in self._groups],
            "previous": rank - stride if pipeline and not first else None,
            "next": rank + stride if pipeline and not last else None,
            "slices": self._slices_of(rank),
        }

    def _stage_stride(self) -> int:
        pipeline = self.program.plan.pipeline_axis
        if pipeline is None:
            return 0
        ranks = self.program.plan.mesh.group(0, (pipeline,))
        return ranks[1] - ranks[0] if len(ranks) > 1 else 0

    def _group_text(self, rank: int, axes: Axes, stages: tuple[int, ...]) -> str:
        """The ranks of a group: a range where they lie evenly. All its members have the same text."""
        mesh = self.program.plan.mesh
        stride = self._stage_stride()
        base = rank - self.stage.index * stride if stages else rank
        key = axes, stages, mesh.first(base, axes)
        if key not in self._group_texts:
            group = mesh.group(base, axes)
            self._group_texts[key] = _ranks_text(
                [other + stage * stride for stage in stages for other in group] if stages else group
            )
        return self._group_texts[key]

    def _slices_of(self, rank: int) -> list[tuple[str, list[tuple[str, str]]]]:
        found = []
        for unit in dict.fromkeys(call.unit for call in self.stage.calls):
            rows = []
            described = self.program.units[unit]
            for parameter, (key, _) in zip(described.parameters, self.text.weights[unit], strict=True):
                if any(described.values[parameter.value].placement.split):
                    rows.append((key, self._slice(described, parameter.value, rank)))
            if rows:
                found.append((unit, rows))
        return found

    def _slice(self, unit: Unit, name: str, rank: int) -> str:
        value = unit.values[name]
        mesh = self.program.plan.mesh
        indexes = tuple(mesh.index(rank, axes) for axes in value.placement.split)
        key = (f"{unit.name} {name}", indexes)
        if key not in self._slices:
            parts = []
            for size, axes, index in zip(value.shape, value.placement.split, indexes, strict=True):
                part = self.program.local_size(size, axes, self.sizing)
                whole = int(self.program.sizes.value(size, self.sizing))
                parts.append(f"{min(index * part, whole)}:{min((index + 1) * part, whole)}" if axes else ":")
            sizes = ", ".join(str(int(self.program.sizes.value(size, self.sizing))) for size in value.shape)
            self._slices[key] = f"[{', '.join(parts)}] of [{sizes}]"
        return self._slices[key]


def groups_of(program: Program, stage: Stage, text: StageText) -> list[tuple[str, Axes, tuple[int, ...]]]:
    """The groups that a stage's text names: name, axes, and the stages for one that spans stages."""
    mesh = program.plan.mesh
    names = {mesh.name(axes): axes for axes in _axes_used(program, stage)}
    found = [(name, axes, ()) for name, axes in sorted(names.items())]
    found += [(family.name, family.axes, family.stages) for family in text.families if family.name not in names]
    return sorted(found)


def _axes_used(program: Program, stage: Stage) -> set[Axes]:
    """Axes of every collective, group argument and sum of one loss in a stage."""
    found: set[Axes] = set()

    def look(argument: object) -> None:
        if isinstance(argument, Group):
            found.add(argument.axes)
        if isinstance(argument, tuple):
            for item in argument:
                look(item)

    for unit in {call.unit for call in stage.calls}:
        for item in program.units[unit].forward:
            if isinstance(item, Collective):
                found.add(item.move.axes)
            elif isinstance(item, Compute):
                for op in item.ops:
                    look(op.args)
    if program.has_loss(stage):
        found |= {same_axes(program, value) for value in _counted_values(program)} - {()}
    return found


def _counted_values(program: Program) -> list[Value]:
    """The loss, and what it is a sum over."""
    counter = program.counter
    return [program.values[program.loss], *([counter.values[counter.outputs[0]]] if counter else [])]


def step_lines(stage: Stage, stages: int, counted: bool, has_loss: bool, counter_same: str) -> list[str]:
    """The body of `step`: the schedule as loops where it repeats."""
    lines = _schedule_lines(stage, stages)
    if counted:
        same = f", same={counter_same!r}".replace("'", '"') if counter_same and has_loss else ""
        first = f"run.count_valid(stage.count(run){same})" if has_loss else "run.count_valid(())"
        lines = [first, *lines]
    return [*lines, "stage.reduce_gradients(run)", "run.update()"]


def schedule_text(kind: str, stage: Stage, stages: int) -> str:
    """What the schedule is, in words."""
    batches = max(step.index for step in stage.schedule) + 1
    name = {"1f1b": "1F1B", "gpipe": "GPipe"}[kind]
    plural = f"{batches} micro-batches" if batches > 1 else "one micro-batch"
    if stages == 1:
        return (
            f"{plural[0].upper()}{plural[1:]}, each forward and then backward."
            if kind == "1f1b"
            else f"{name} over {plural}."
        )
    fill = min(stages - 1 - stage.index, batches)
    if kind == "gpipe":
        return f"GPipe over {plural}: all forward, then all backward."
    if not fill:
        return f"1F1B over {plural}: the last stage has nothing to fill and nothing to drain."
    steady = f"{batches - fill} forward and backward in turn"
    return f"1F1B over {plural}: {fill} forward to fill, {steady}, {fill} backward to drain."


def _schedule_lines(stage: Stage, stages: int) -> list[str]:
    """Instructions as lines, with the longest repetitions as loops."""
    steps = [_template(step, stage, stages) for step in stage.schedule]
    lines: list[str] = []
    place = 0
    while place < len(steps):
        period, turns = _repetition(steps, place)
        body = steps[place : place + period]
        if turns > 1:
            indexes = [index for _, index in body if index is not None]
            start = min(indexes, default=0)
            lines.append(f"for i in range({start}, {start + turns}):" if start else f"for i in range({turns}):")
            for text, index in body:
                offset = "" if index is None or index == start else f" + {index - start}"
                lines.append(f"    {text.replace('@', f'i{offset}')}")
        else:
            lines += [text.replace("@", str(index)) for text, index in body]
        place += period * turns
    return lines


def _template(step: Instruction, stage: Stage, stages: int) -> tuple[str, int | None]:
    """A line with @ for the micro-batch, and the micro-batch if it names one."""
    first, last = stage.index == 0, stage.index == stages - 1
    if step.kind == "forward":
        given = "" if first else ", x"
        return (f"stage.forward(run, @{given})" if last else f"y = stage.forward(run, @{given})"), step.index
    if step.kind == "backward":
        given = "" if last else ", dy"
        return (f"stage.backward(run, @{given})" if first else f"dx = stage.backward(run, @{given})"), step.index
    return _LINES[step.kind], None


def _repetition(steps: Sequence[tuple[str, int | None]], place: int) -> tuple[int, int]:
    """The period and the number of turns that cover most from a place on."""
    best = (1, 1)
    for period in range(1, (len(steps) - place) // 2 + 1):
        turns = 1
        while _alike(steps, place, period, turns):
            turns += 1
        if turns > 1 and period * turns > best[0] * best[1]:
            best = (period, turns)
    return best


def _alike(steps: Sequence[tuple[str, int | None]], place: int, period: int, turn: int) -> bool:
    """Is the block `turn` periods on the same, with every micro-batch that many further?"""
    start = place + period * turn
    if start + period > len(steps) or not _begins_well(steps[place : place + period]):
        return False
    for (text, index), (other, later) in zip(steps[place : place + period], steps[start : start + period], strict=True):
        if text != other or (index is None) != (later is None):
            return False
        if index is not None and later is not None and later != index + turn:
            return False
    return True


def _begins_well(block: Sequence[tuple[str, int | None]]) -> bool:
    """A turn that waits for its neighbours begins so, and does not wait for the next turn's tensors at its end."""
    waits = [place for place, (text, _) in enumerate(block) if "run.receive(" in text]
    return all(place == 0 for place in waits)


def _dict_text(items: Mapping[str, int]) -> str:
    return "{" + ", ".join(f'"{name}": {number}' for name, number in items.items()) + "}"


@cache
def _ranks_pattern(offsets: tuple[int, ...]) -> tuple[int, int] | None:
    """(step, count) of ranks that lie evenly."""
    if len(offsets) < 3:
        return None
    step = offsets[1]
    return (step, len(offsets)) if step > 0 and all(o == n * step for n, o in enumerate(offsets)) else None


def _ranks_text(ranks: Sequence[int]) -> str:
    first = ranks[0]
    pattern = _ranks_pattern(tuple(rank - first for rank in ranks))
    if pattern is None:
        return f"({', '.join(str(rank) for rank in ranks)}{',' if len(ranks) == 1 else ''})"
    step, count = pattern
    end = first + step * (count - 1) + 1
    return f"range({first}, {end}, {step})" if step > 1 else f"range({first}, {end})"

"""Runs the emitted text of one rank of every stage without memory, one micro-batch forward and backward.

What is timed and weighed is thus the text that will run, under the runtime that it will run under.
"""

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from moec.compiler.cost.recorder import META, Alive, Mark, Recorder, Storage, WatchedTape, Watcher
from moec.compiler.emit import FULL, emit
from moec.compiler.program import Program, Stage
from moec.runtime import communicator
from moec.runtime.data import Sample
from moec.runtime.job import Job, job_of
from moec.runtime.launch import rank_name
from moec.runtime.place import Place, place_of
from moec.runtime.run import Run
from moec.runtime.tape import Tape
from moec.runtime.weights import Weights

_TURNS = 3
"""Of a loop over layers that are run: the first, one that stands for those in the middle, and the last."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What happens `times` in a row: a turn of a loop over layers, or all that happens but once.

    The bytes of its events count from the segment's start; each time it leaves `growth` more.
    """

    name: str
    times: int
    events: tuple[Alive, ...]
    growth: int
    repeated: bool = False
    """Whether the model has a list of such; an embedding and a head are not repeated."""

    @property
    def peak(self) -> int:
        return max((alive.held for alive in self.events), default=0)


@dataclass(frozen=True, slots=True)
class Pass:
    """A micro-batch through one stage, forward or backward; a backward begins with what its forward has kept."""

    segments: tuple[Segment, ...]
    start: int

    @property
    def end(self) -> int:
        return self.start + sum(segment.times * segment.growth for segment in self.segments)

    @property
    def peak(self) -> int:
        level = highest = self.start
        for segment in self.segments:
            last = level + (segment.times - 1) * segment.growth
            highest = max(highest, max(level, last) + segment.peak)
            level = last + segment.growth
        return highest


@dataclass(frozen=True, slots=True)
class Held:
    """Bytes that a rank holds through all steps."""

    weights: int
    gradients: int
    optimizer: int
    tables: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.tables


@dataclass(frozen=True, slots=True)
class Reduction:
    """The sum over a group of the gradients of one family of weights, at the end of a step."""

    group: str
    size: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A tensor that every turn of a loop keeps for the backward, as it was made."""

    loop: str
    turns: int
    shape: tuple[int, ...]
    itemsize: int
    region: str


@dataclass(frozen=True, slots=True)
class Rank:
    """What the ranks of one stage do in a step; `groups` are those of the rank that was run."""

    stage: int
    rank: int
    groups: Mapping[str, tuple[int, ...]]
    forward: Pass
    backward: Pass
    held: Held
    reductions: tuple[Reduction, ...]
    updated: int
    """Elements that the optimizer updates."""
    sent: int
    """Bytes of what the next stage gets for a micro-batch."""
    next: int | None
    kept: tuple[Kept, ...]
    """What `forward` leaves, by the loop that made it."""
    sizes: Mapping[str, int]
    """The names of sizes in the text."""


def dry_run(program: Program, skew: float = 1.0, gpu: bool = True, sizing: int = FULL) -> tuple[Rank, ...]:
    """One rank of every stage; ragged rows of experts that arrive are `skew` times the mean. Kernels are those of
    PyTorch on a `gpu`, or else on a CPU."""
    first = {program.stage_of(rank): rank for rank in reversed(range(program.world_size))}
    ranks = [first[stage.index] for stage in program.stages]
    files = emit(_of_one_micro_batch(program), sizing, only=ranks)
    job = job_of(files["plan.json"], Path())
    known: dict[object, _MicroBatch] = {}
    stages = zip(program.stages, ranks, strict=True)
    return tuple([_StageRun(program, stage, rank, files, skew, gpu, known).rank_of(job) for stage, rank in stages])


def _of_one_micro_batch(program: Program) -> Program:
    """One micro-batch is run, and how the text says the rest is of no interest."""
    stages = [
        replace(stage, schedule=tuple(step for step in stage.schedule if step.index == 0)) for stage in program.stages
    ]
    return replace(program, stages=tuple(stages))


class _DryRun(Run):
    """A run whose tapes are watched, and whose inputs have shapes and no values."""

    recorder: Recorder
    shapes: Mapping[str, Tensor]

    def tape(self, i: int) -> Tape:
        if i not in self._tapes:
            self._tapes[i] = WatchedTape(self.recorder)
        return self._tapes[i]

    def inputs(self, i: int) -> dict[str, Tensor]:
        return dict(self.shapes)

    @property
    def divisor(self) -> Tensor:
        return torch.empty((), dtype=torch.float64, device=META)


class _NoData:
    """Nothing is read."""

    fingerprint = ""

    def sample(self, index: int) -> Sample:
        raise AssertionError("a dry run reads no data")


def _empty(name: str, shape: Sequence[int], init: str, where: Sequence[slice]) -> Tensor:
    return torch.empty((), dtype=torch.float64, device=META)


@dataclass(slots=True)
class _StageRun:
    program: Program
    stage: Stage
    rank: int
    files: Mapping[str, str]
    skew: float
    gpu: bool
    known: dict[object, "_MicroBatch"]

    def rank_of(self, job: Job) -> Rank:
        """Run one micro-batch, and say what it took."""
        module, text, sizes = self._modules()
        place = place_of(module)
        recorder = Recorder(self.skew, self.gpu)
        communicator.use(Watcher(recorder, self.rank, place.groups, self.program.world_size))
        with META:
            run = _DryRun(module, job, _empty, _NoData(), META)
        run.recorder, run.shapes = recorder, self._inputs(job, place, text)
        held, families = _held(run), run.weights.families
        names = self._watch(text, recorder)
        key = self._alike(text)
        if key not in self.known:
            run.weights = _shortened(run.weights)
            self.known[key] = _micro_batch(text, run, recorder)
        done = self.known[key]
        forward = Pass(_segments(done.forward, self._loops(names, "forward"), 0), 0)
        backward = Pass(_segments(done.backward, self._loops(names, "backward")[::-1], done.kept), forward.end)
        return Rank(
            self.stage.index,
            self.rank,
            place.groups,
            forward,
            backward,
            held,
            tuple(Reduction(f.reduce, f.gradients.nbytes) for f in families if len(place.groups.get(f.reduce, ())) > 1),
            sum(len(family.values) for family in families),
            done.sent,
            place.next,
            _kept(done, self._loops(names, "forward")),
            {name: value for name, value in vars(sizes).items() if type(value) is int},
        )

    def _modules(self) -> tuple[ModuleType, ModuleType, ModuleType]:
        """The rank's file, its stage's, and that of the sizes, in memory."""
        stage = f"stage_{self.stage.index}"
        sizes = _module("sizes", self.files["sizes.py"], {})
        text = _module(stage, self.files[f"{stage}.py"], {"sizes": sizes})
        name = rank_name(self.rank, self.program.world_size)
        return _module(name, self.files[f"{name}.py"], {stage: text}), text, sizes

    def _inputs(self, job: Job, place: Place, text: ModuleType) -> dict[str, Tensor]:
        splits: Mapping[str, tuple[tuple[str, ...], ...]] = vars(text).get("INPUTS", {})
        given = {each.name: each for each in job.inputs}
        found = {}
        for name, axes in splits.items():
            each = given[name.partition("@")[0]]
            shape = (job.batch // job.accumulate, *each.shape)
            local = [size // place.count(over) for size, over in zip(shape, axes, strict=True)]
            dtype = job.training.dtype if each.kind == "float" else torch.int64
            found[name] = torch.empty(local, dtype=dtype, device=META)
        return found

    def _alike(self, text: ModuleType) -> object:
        """What stages have in common whose micro-batches do the same."""
        loops = [(tuple(call.unit for call in loop.body), min(len(loop.turns), _TURNS)) for loop in self.stage.loops]
        return tuple(loops), *(str(vars(text).get(table)) for table in ("ACTIVATIONS_IN", "GRADIENTS_IN"))

    def _watch(self, text: ModuleType, recorder: Recorder) -> set[str]:
        """Put a mark around the functions of the stage's units; their names."""
        units = {call.unit for call in self.stage.calls}
        names = {f"{unit}_{way}" for unit in units for way in ("forward", "backward")} & set(vars(text))
        for name in names:
            vars(text)[name] = recorder.marked(name, vars(text)[name])
        return names

    def _loops(self, names: set[str], way: str) -> list["_Loop"]:
        """Loops of which any call is made."""
        found = []
        for loop in self.stage.loops:
            calls = [call for call in loop.body if f"{call.unit}_{way}" in names]
            if calls:
                name = " ".join(dict.fromkeys(call.unit for call in calls))
                found.append(_Loop(name, len(calls), len(loop.turns), any(call.repeated for call in calls)))
        return found


@dataclass(frozen=True, slots=True)
class _Loop:
    """What a loop is called, how many calls a turn of it makes, and how many turns."""

    name: str
    calls: int
    turns: int
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class _MicroBatch:
    """What happened forward and backward, the bytes that were kept between the two, and those that were sent on."""

    forward: Sequence[Alive]
    backward: Sequence[Alive]
    kept: int
    sent: int
    alive: Sequence[Storage]


def _micro_batch(text: ModuleType, run: Run, recorder: Recorder) -> _MicroBatch:
    functions = vars(text)
    with recorder.record():
        sent = functions["forward"](run, 0, *_received(functions, "ACTIVATIONS_IN")) or ()
        middle, kept, alive = len(recorder.events), recorder.held(), recorder.alive()
        size = sum(x.nbytes for x in sent)
        sent = ()
        functions["backward"](run, 0, *_received(functions, "GRADIENTS_IN"))
    return _MicroBatch(recorder.events[:middle], recorder.events[middle:], kept, size, alive)


def _kept(done: _MicroBatch, loops: Sequence[_Loop]) -> tuple[Kept, ...]:
    """By loop; of one with several turns what the second has made stands for all: the first has what was received."""
    begins = [n for n, alive in enumerate(done.forward) if isinstance(alive.event, Mark) and alive.event.enters]
    begins = [0, *begins[1:], len(done.forward) + 1] if begins else [0, len(done.forward) + 1]
    found: list[Kept] = []
    call = 0
    for loop in loops:
        shown = min(loop.turns, _TURNS)
        spans = [(begins[call + turn * loop.calls], begins[call + (turn + 1) * loop.calls]) for turn in range(shown)]
        call += shown * loop.calls
        first, last = spans[min(1, shown - 1)]
        mine = [storage for storage in done.alive if first <= storage.made < last]
        found += [Kept(loop.name, loop.turns, each.shape, each.itemsize, each.region) for each in mine]
    return tuple(found)


def _received(functions: Mapping[str, object], table: str) -> tuple[tuple[Tensor, ...], ...]:
    """The arguments for what comes from another stage; none at the ends of the pipeline."""
    slots = functions.get(table)
    if not isinstance(slots, tuple):
        return ()
    tensors = [torch.empty(slot.shape, dtype=slot.dtype, device=META) for slot in slots]
    return (tuple(x.requires_grad_() if slot.grad else x for x, slot in zip(tensors, slots, strict=True)),)


def _segments(events: Sequence[Alive], loops: Sequence[_Loop], start: int) -> tuple[Segment, ...]:
    """Cut what happened into turns of the loops, each from where its first call begins to where the next one does."""
    begins = [n for n, alive in enumerate(events) if isinstance(alive.event, Mark) and alive.event.enters]
    begins = [0, *begins[1:], len(events)] if begins else [0, len(events)]
    held = [start, *(events[n].held for n in begins[1:-1]), events[-1].held if events else start]
    found: list[Segment] = []
    call = 0
    for loop in loops or [_Loop("stage", 1, 1)]:
        for turn in range(min(loop.turns, _TURNS)):
            first, call = call, call + loop.calls
            kept = _without_marks(events[begins[first] : begins[call]])
            relative = tuple([replace(each, held=each.held - held[first]) for each in kept])
            times = loop.turns - 2 if turn == 1 and loop.turns >= _TURNS else 1
            found.append(Segment(loop.name, times, relative, held[call] - held[first], loop.repeated))
    assert call == len(begins) - 1, "the stage calls its units in the order of its loops"
    return tuple(found)


def _without_marks(events: Sequence[Alive]) -> list[Alive]:
    """What ended before a mark ended before what comes after it."""
    found: list[Alive] = []
    freed: tuple[int, ...] = ()
    for alive in events:
        freed += alive.freed
        if not isinstance(alive.event, Mark):
            found.append(replace(alive, freed=freed))
            freed = ()
    return found


def _shortened(weights: Weights) -> Weights:
    """Only the first turns of every loop."""
    units = tuple(instances[:_TURNS] for instances in weights.units)
    return replace(weights, units=units)


def _held(run: Run) -> Held:
    families = run.weights.families
    trained = sum(family.values.nbytes for family in families)
    fixed = sum(shard.value.nbytes for shard in run.weights.shards.values() if not shard.weight.trainable)
    return Held(
        trained + fixed,
        sum(family.gradients.nbytes for family in families),
        run.optimizer.nbytes,
        sum(table.nbytes for table in run.tables.values()),
    )


def _module(name: str, text: str, others: Mapping[str, ModuleType]) -> ModuleType:
    """An emitted file as a module; `others` are those that it imports beside torch and the runtime."""

    def find(wanted: str, *args: object, **kwargs: object) -> object:
        return others[wanted] if wanted in others else builtins.__import__(wanted, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    module = ModuleType(name)
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": find}
    exec(compile(text, f"{name}.py", "exec"), vars(module))
    return module

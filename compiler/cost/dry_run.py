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

from moec.compiler.cost.operators import recorded
from moec.compiler.cost.passes import (
    TURNS,
    Kept,
    Loop,
    MicroBatch,
    Pass,
    kept_of,
    segments_of,
)
from moec.compiler.cost.recorder import META, Recorder
from moec.compiler.cost.watched import WatchedTape, Watcher
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
    done: MicroBatch
    """What was recorded."""
    sizes: Mapping[str, int]
    """The names of sizes in the text."""


def dry_run(program: Program, skew: float = 1.0, gpu: bool = True, sizing: int = FULL) -> tuple[Rank, ...]:
    """One rank of every stage; ragged rows of experts that arrive are `skew` times the mean. Kernels are those of
    PyTorch on a `gpu`, or else on a CPU."""
    first = {program.stage_of(rank): rank for rank in reversed(range(program.world_size))}
    ranks = [first[stage.index] for stage in program.stages]
    files = emit(_of_one_micro_batch(program), sizing, only=ranks)
    job = job_of(files["plan.json"], Path())
    known: dict[object, MicroBatch] = {}
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
    known: dict[object, "MicroBatch"]

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
        forward = Pass(segments_of(done.forward, self._loops(names, "forward"), 0), 0)
        backward = Pass(segments_of(done.backward, self._loops(names, "backward")[::-1], done.kept), forward.end)
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
            kept_of(done, self._loops(names, "forward")),
            done,
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
        loops = [(tuple(call.unit for call in loop.body), min(len(loop.turns), TURNS)) for loop in self.stage.loops]
        return tuple(loops), *(str(vars(text).get(table)) for table in ("ACTIVATIONS_IN", "GRADIENTS_IN"))

    def _watch(self, text: ModuleType, recorder: Recorder) -> set[str]:
        """Put a mark around the functions of the stage's units; their names."""
        units = {call.unit for call in self.stage.calls}
        names = {f"{unit}_{way}" for unit in units for way in ("forward", "backward")} & set(vars(text))
        for name in names:
            vars(text)[name] = recorder.marked(name, vars(text)[name])
        return names

    def _loops(self, names: set[str], way: str) -> list["Loop"]:
        """Loops of which any call is made."""
        found = []
        for loop in self.stage.loops:
            calls = [call for call in loop.body if f"{call.unit}_{way}" in names]
            if calls:
                name = " ".join(dict.fromkeys(call.unit for call in calls))
                found.append(Loop(name, len(calls), len(loop.turns), any(call.repeated for call in calls)))
        return found


def _micro_batch(text: ModuleType, run: Run, recorder: Recorder) -> MicroBatch:
    functions = vars(text)
    with recorded(recorder):
        sent = functions["forward"](run, 0, *_received(functions, "ACTIVATIONS_IN")) or ()
        middle, kept, alive = len(recorder.events), recorder.held(), recorder.alive()
        size = sum(x.nbytes for x in sent)
        sent = ()
        functions["backward"](run, 0, *_received(functions, "GRADIENTS_IN"))
    return MicroBatch(recorder.events[:middle], recorder.events[middle:], kept, size, alive, recorder.storages)


def _received(functions: Mapping[str, object], table: str) -> tuple[tuple[Tensor, ...], ...]:
    """The arguments for what comes from another stage; none at the ends of the pipeline."""
    slots = functions.get(table)
    if not isinstance(slots, tuple):
        return ()
    tensors = [torch.empty(slot.shape, dtype=slot.dtype, device=META) for slot in slots]
    return (tuple(x.requires_grad_() if slot.grad else x for x, slot in zip(tensors, slots, strict=True)),)


def _shortened(weights: Weights) -> Weights:
    """Only the first turns of every loop."""
    units = tuple(instances[:TURNS] for instances in weights.units)
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

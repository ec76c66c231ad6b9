"""Runs the programs of all ranks in one process, in float64, and compares them with the unsharded model.

What runs are the stage files of the output folder themselves, under the small header (shrink.py). The reference is the
user's module, or for a described model the one in compiler/reference, under plain autograd. Loss, every gradient and
every weight are compared in each of three optimizer steps.
"""

import importlib.util
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from moec.compiler.check import Report, check
from moec.compiler.emit import SMALL, emit
from moec.compiler.find_fault import Edit, edits_of, fault_text, locate
from moec.compiler.models.reference_of import reference_model
from moec.compiler.program import Program
from moec.compiler.reference.precise import precise
from moec.compiler.reference.train import Hyper, train
from moec.compiler.shrink import Shrunk, Units, shrink
from moec.dsl.plan import Plan
from moec.runtime.data import Source, open_source
from moec.runtime.initial import Initial
from moec.runtime.job import Job, read_job
from moec.runtime.module_values import ModuleValues
from moec.runtime.place import place_of
from moec.runtime.run import Run
from moec.runtime.simulated import simulate
from moec.runtime.weights import Values

STEPS = 3
TOLERANCE = 1e-9
GRADIENT_FLOOR = 1e-3
"""Of the largest gradient's norm: what is smaller is compared with this, since its rounding noise is not an error."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verify found. Errors are relative, the largest of all tensors, ranks and steps."""

    ranks: int
    equal: bool
    loss: float
    gradients: float
    weights: float
    seconds: float
    shrunk: tuple[str, ...]
    statement: tuple[str, ...]
    faults: tuple[str, ...]
    checked: Report | None  # without numbers, at the plan's own sizes


@dataclass(slots=True)
class Outcome:
    """One rank after its steps: per step the loss, and its slices of gradients; then its slices of weights."""

    losses: list[float] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    where: dict[str, tuple[slice, ...]] = field(default_factory=dict)
    inside: dict[str, tuple[slice, ...]] = field(default_factory=dict)


def verify(plan: Plan, program: Program, build: Path | None) -> Verdict:
    """Prove the emitted programs, or those that are in the folder `build`, equal to the unsharded model."""
    started = time.perf_counter()
    full = emit(program, output=build)
    edits = edits_of(full, build) if build is not None else []
    unreadable = [edit for edit in edits if edit.unreadable]
    own_schedule = any(edit.file.startswith("rank_") for edit in edits)
    shrunk = shrink(program, plan.schedule.accumulate if own_schedule else None)
    files = dict(emit(shrunk.program, SMALL))
    faults = [edit.unreadable for edit in unreadable]
    errors: dict[str, float] = dict.fromkeys(("loss", "gradients", "weights"), float("inf"))
    checked = None
    if not faults:
        texts = {edit.file: edit.text for edit in edits}
        checked = check(program, full | texts)
        with _one_thread():
            faults, errors = _compare(shrunk, files, files | texts, edits)
        faults = _with_checked(checked, faults, edits)
    statement = _statement(shrunk, errors, edits, checked, not faults)
    seconds = time.perf_counter() - started
    return Verdict(
        ranks=program.world_size,
        equal=not faults,
        loss=errors["loss"],
        gradients=errors["gradients"],
        weights=errors["weights"],
        seconds=seconds,
        shrunk=shrunk.changes,
        statement=statement,
        faults=tuple(faults),
        checked=checked,
    )


def _with_checked(checked: Report, faults: list[str], edits: Sequence[Edit]) -> list[str]:
    """What the check without numbers found comes first, since it names the instruction.

    Programs that were edited by hand may compute the same by another way, which it does not follow: numbers decide.
    """
    followed = [fault for fault in checked.faults if not edits or faults or fault.check not in ("text", "values")]
    return [*(str(fault) for fault in followed[:3]), *faults]


def _compare(
    shrunk: Shrunk, files: Mapping[str, str], edited: Mapping[str, str], edits: Sequence[Edit]
) -> tuple[list[str], dict[str, float]]:
    nothing: dict[str, float] = {name: float("inf") for name in ("loss", "gradients", "weights")}
    with _written(edited) as folder:
        job, source, values = _setting(folder, shrunk.program)
        try:
            outcomes = _run_all(folder, shrunk, job, source, values, bool(edits))
        except Exception as fault:
            return [fault_text(fault, folder, edits)], nothing
    expected = _reference(shrunk, job, source, values)
    comparison = _Comparison(expected, outcomes)
    if comparison.equal:
        return [], comparison.errors
    faults = comparison.faults()
    if edits:
        with _written(files) as good, _written(edited) as bad:
            faults = [*locate(good, bad, edits, lambda place: _run_traced(place, shrunk, job, source, values)), *faults]
    return faults, comparison.errors


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small tensors are worked on faster by one thread than shared out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ---- The programs.


@contextmanager
def _written(files: Mapping[str, str]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="moec-verify-") as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        yield folder


def _setting(folder: Path, program: Program) -> tuple[Job, Source, Values]:
    """Job, data and initial values, with spreads large enough that no gradient drowns."""
    job = read_job(folder / "plan.json")
    seed = job.training.seed
    drawn = Initial(seed)
    own = ModuleValues(job.model, seed) if job.model is not None else None

    def values(name: str, shape: Sequence[int], init: str, where: Sequence[slice]) -> Tensor:
        if own is not None and init == "module":
            return own(name, shape, init, where)
        noise = drawn(f"{name} noise", shape, "normal 0.3", where)
        return noise + 1.0 if init == "ones" else noise

    made_up = replace(job, data=None)  # a dataset has the sizes of the plan
    return job, open_source(made_up, None, seed), values


def _run_all(folder: Path, shrunk: Shrunk, job: Job, source: Source, values: Values, edited: bool) -> list[Outcome]:
    modules = load_ranks(folder, job.world_size, shrunk.units, edited)

    def program(rank: int) -> Outcome:
        return _run_rank(modules[rank], job, source, values)

    return simulate(job.world_size, program, lambda rank: place_of(modules[rank]).groups)


def _run_traced(folder: Path, shrunk: Shrunk, job: Job, source: Source, values: Values) -> None:
    """One step of all ranks, for a recording that is switched on outside."""
    modules = load_ranks(folder, job.world_size, shrunk.units, edited=True)

    def program(rank: int) -> None:
        modules[rank].step(Run(modules[rank], job, values, source))

    simulate(job.world_size, program, lambda rank: place_of(modules[rank]).groups)


def _run_rank(module: ModuleType, job: Job, source: Source, values: Values) -> Outcome:
    run = Run(module, job, values, source)
    outcome = Outcome()
    update = run.update

    def record_then_update() -> None:
        run.weights.clear_padding()
        shards = run.weights.shards
        outcome.gradients.append(
            {
                n: s.value.grad[s.inside].clone()
                for n, s in shards.items()
                if s.weight.trainable and s.value.grad is not None
            }
        )
        update()

    run.__dict__["update"] = record_then_update
    for _ in range(STEPS):
        module.step(run)
        assert run.result is not None, "a step ends in run.update()"
        outcome.losses.append(run.result.loss)
    for name, shard in run.weights.shards.items():
        outcome.weights[name] = shard.value.detach()[shard.inside]
        outcome.inside[name] = shard.inside
        outcome.where[name] = tuple(
            slice(part.start, part.start + kept.stop) for part, kept in zip(shard.where, shard.inside, strict=True)
        )
    return outcome


def load_ranks(folder: Path, world: int, units: tuple[Units, ...], edited: bool) -> list[ModuleType]:
    """The rank files as modules, each stage with the layers that `units` keeps of it."""
    digits = max(3, len(str(world - 1)))
    names = ["sizes", *(f"stage_{n}" for n in range(len(units)))]
    outside = {name: sys.modules.pop(name, None) for name in names}
    try:
        for name in names:
            sys.modules[name] = _load(folder, name)
        for stage, kept in enumerate(units):
            vars(sys.modules[f"stage_{stage}"])["UNITS"] = kept
        ranks = [_load(folder, f"rank_{rank:0{digits}d}") for rank in range(world)]
    finally:
        for name, module in outside.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
    if edited:
        for rank in ranks:
            vars(rank)["SLICES"] = {}  # those of the plan's own sizes
    return ranks


def _load(folder: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


# ---- The reference.


@dataclass(frozen=True, slots=True)
class Expected:
    losses: list[float]
    gradients: list[dict[str, Tensor]]
    weights: dict[str, Tensor]


def _reference(shrunk: Shrunk, job: Job, source: Source, values: Values) -> Expected:
    model = reference_model(shrunk, values)
    names = job.inputs
    size = job.batch // job.accumulate

    def microbatch(step: int, i: int) -> dict[str, Tensor]:
        first = step * job.batch + i * size
        samples = [source.sample(first + n) for n in range(size)]
        return {given.name: _precise(torch.stack([sample[given.name] for sample in samples])) for given in names}

    batches = [[_as_arguments(model, microbatch(step, i)) for i in range(job.accumulate)] for step in range(STEPS)]
    training = job.training
    hyper = Hyper(training.lr, training.beta1, training.beta2, training.eps, training.weight_decay, training.clip)
    shapes = {name: weight.dim() for name, weight in model.named_parameters()}
    with precise():
        trained = train(model, batches, hyper, lambda name: shapes[name] > 1)
    losses = [step.loss for step in trained.steps]
    return Expected(losses, [step.gradients for step in trained.steps], trained.weights)


def _as_arguments(model: torch.nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """By the names of the forward's parameters, in the order of the plan's inputs."""
    import inspect

    names = list(inspect.signature(model.forward).parameters)
    return dict(zip(names, given.values(), strict=False))


def _precise(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


# ---- The comparison.


class _Comparison:
    """Relative errors of every rank's slices of every tensor."""

    def __init__(self, expected: Expected, outcomes: Sequence[Outcome]) -> None:
        self.errors = {"loss": 0.0, "gradients": 0.0, "weights": 0.0}
        self._worst: list[tuple[float, str, str, int, int]] = []  # error, kind, name, rank, step
        for rank, outcome in enumerate(outcomes):
            for step, (mine, true) in enumerate(zip(outcome.losses, expected.losses, strict=True)):
                self._note("loss", abs(mine - true) / max(abs(true), 1e-12), "the loss", rank, step)
            for step, gradients in enumerate(outcome.gradients):
                whole = expected.gradients[step]
                self._compare("gradients", gradients, whole, outcome, rank, step)
            self._compare("weights", outcome.weights, expected.weights, outcome, rank, STEPS - 1)

    @property
    def equal(self) -> bool:
        return all(error <= TOLERANCE for error in self.errors.values())

    def faults(self) -> list[str]:
        """The first tensor that is wrong of each kind, by its error."""
        found = []
        for kind in ("loss", "gradients", "weights"):
            wrong = [entry for entry in self._worst if entry[1] == kind and not entry[0] <= TOLERANCE]
            if wrong:
                first = min(entry[4] for entry in wrong)
                error, _, name, rank, step = max((entry for entry in wrong if entry[4] == first), key=lambda e: e[0])
                ranks = len({entry[3] for entry in wrong})
                what = {"loss": name, "gradients": f"the gradient of {name}", "weights": f"the weight {name}"}[kind]
                found.append(f"{what} differs by {error:.1e} on rank {rank} in step {step + 1} ({ranks} ranks differ)")
        return found

    def _compare(
        self, kind: str, mine: Mapping[str, Tensor], whole: Mapping[str, Tensor], outcome: Outcome, rank: int, step: int
    ) -> None:
        largest = _norm_of_all(whole) if kind == "gradients" else 0.0
        for name, value in mine.items():
            if name not in whole:
                continue  # a buffer
            true = whole[name]
            floor = GRADIENT_FLOOR * largest if kind == "gradients" else true.numel() ** 0.5
            error = float((value - true[outcome.where[name]]).norm()) / max(_norm(true), floor, 1e-300)
            self._note(kind, error, name, rank, step)

    def _note(self, kind: str, error: float, name: str, rank: int, step: int) -> None:
        error = error if error == error else float("inf")
        self.errors[kind] = max(self.errors[kind], error)
        if error > TOLERANCE:
            self._worst.append((error, kind, name, rank, step))


def _norm(x: Tensor) -> float:
    return float(x.norm())


def _norm_of_all(tensors: Mapping[str, Tensor]) -> float:
    return max((_norm(x) for x in tensors.values()), default=0.0)


def _statement(
    shrunk: Shrunk, errors: Mapping[str, float], edits: Sequence[Edit], checked: Report | None, equal: bool
) -> tuple[str, ...]:
    ranks = shrunk.program.world_size
    if checked is None:
        return ("nothing was run, since what is in the folder cannot be",)
    lines = [checked.statement] if not checked.faults else []
    lines.append(f"ran the programs of all {ranks} ranks in one process, in float64, {STEPS} optimizer steps")
    if shrunk.changes:
        lines.append(f"shrunk: {', '.join(shrunk.changes)}")
    if edits:
        places = ", ".join(f"{edit.file} ({edit.lines} {'line' if edit.lines == 1 else 'lines'})" for edit in edits)
        kept = "and still the same computation" if equal else "and no longer the same computation"
        lines.append(f"edited by hand: {places}; {kept}")
        if equal and checked.faults:
            lines.append(f"by another way than moec's, so only as far as numbers tell: {checked.faults[0]}")
    shown = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    numbers = max(errors.values()) <= TOLERANCE
    lines.append(f"{'equal to' if numbers else 'DIFFERENT FROM'} the unsharded model; largest relative errors: {shown}")
    return tuple(lines)

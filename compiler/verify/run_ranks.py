"""Runs the rank programs of a folder in float64 for a few optimizer steps, and keeps what they came to."""

import importlib.util
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from moec.compiler.reference.experts import Routing
from moec.compiler.verify.decisions import deciding
from moec.compiler.verify.shrink import Units
from moec.runtime.data import Source, open_source
from moec.runtime.initial import Initial
from moec.runtime.job import Job, read_job
from moec.runtime.launch import rank_name
from moec.runtime.module_values import ModuleValues
from moec.runtime.place import place_of
from moec.runtime.run import Run
from moec.runtime.simulated import simulate
from moec.runtime.weights import Values

STEPS = 3
_SPREAD = 0.3


@dataclass(slots=True)
class Outcome:
    """One rank after its steps: per step the loss, and its slices of gradients; then its slices of weights."""

    losses: list[float] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    where: dict[str, tuple[slice, ...]] = field(default_factory=dict)
    decisions: list[Routing] = field(default_factory=list)
    """Of all steps, in the order in which the rank took them."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A folder to run: its job, its data, and initial values with spreads so large that no gradient drowns."""

    folder: Path
    job: Job
    source: Source
    values: Values

    @staticmethod
    def of(folder: Path) -> "Setting":
        job = read_job(folder / "plan.json")
        seed = job.training.seed
        drawn = Initial(seed)
        own = ModuleValues(job.model, seed) if job.model is not None else None

        def values(name: str, shape: Sequence[int], init: str, where: Sequence[slice]) -> Tensor:
            if own is not None and init == "module":
                return own(name, shape, init, where)
            spread = min(_SPREAD, shape[-1] ** -0.5) if len(shape) > 1 else _SPREAD
            noise = drawn(f"{name} noise", shape, f"normal {spread}", where)
            return noise + 1.0 if init == "ones" else noise

        # A dataset of the plan's has samples of the plan's sizes.
        return Setting(folder, job, open_source(replace(job, data=None), None, seed), values)


@contextmanager
def written(files: Mapping[str, str]) -> Iterator[Path]:
    """The files in a folder of their own, for a while."""
    with tempfile.TemporaryDirectory(prefix="moec-verify-") as name:
        folder = Path(name)
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        yield folder


@contextmanager
def one_thread() -> Iterator[None]:
    """Small tensors are worked on faster by one thread than shared out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_all(setting: Setting, units: tuple[Units, ...], edited: bool) -> list[Outcome]:
    """Every rank in this process. Raises what a rank raises, or Mismatch or Deadlock."""
    world = setting.job.world_size
    modules = load_ranks(setting.folder, range(world), world, units, edited)

    def program(rank: int) -> Outcome:
        return run_rank(modules[rank], setting)

    return simulate(world, program, lambda rank: place_of(modules[rank]).groups)


def run_one_step(folder: Path, units: tuple[Units, ...]) -> None:
    """One step of all ranks, for a recording that is switched on outside."""
    setting = Setting.of(folder)
    world = setting.job.world_size
    modules = load_ranks(folder, range(world), world, units, edited=True)

    def program(rank: int) -> None:
        modules[rank].step(Run(modules[rank], setting.job, setting.values, setting.source))

    simulate(world, program, lambda rank: place_of(modules[rank]).groups)


def run_rank(module: ModuleType, setting: Setting) -> Outcome:
    """One rank, as whose the communicator in use speaks."""
    run = Run(module, setting.job, setting.values, setting.source)
    outcome = Outcome()
    update = run.update

    def record_then_update() -> None:
        run.weights.clear_padding()
        outcome.gradients.append(
            {
                name: shard.value.grad[shard.inside].clone()
                for name, shard in run.weights.shards.items()
                if shard.weight.trainable and shard.value.grad is not None
            }
        )
        update()

    run.__dict__["update"] = record_then_update
    with deciding(outcome.decisions):
        for _ in range(STEPS):
            module.step(run)
            assert run.result is not None, "a step ends in run.update()"
            outcome.losses.append(run.result.loss)
    for name, shard in run.weights.shards.items():
        outcome.weights[name] = shard.value.detach()[shard.inside]
        outcome.where[name] = shard.kept
    return outcome


def load_ranks(
    folder: Path, ranks: Sequence[int], world: int, units: tuple[Units, ...], edited: bool
) -> list[ModuleType]:
    """The files of these ranks as modules, each stage with the layers that `units` keeps of it."""
    names = ["sizes", *(f"stage_{n}" for n in range(len(units)))]
    outside = {name: sys.modules.pop(name, None) for name in names}
    try:
        for name in names:
            sys.modules[name] = _load(folder, name)
        for stage, kept in enumerate(units):
            vars(sys.modules[f"stage_{stage}"])["UNITS"] = kept
        loaded = [_load(folder, rank_name(rank, world)) for rank in ranks]
    finally:
        for name, module in outside.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
    if edited:
        for rank in loaded:
            vars(rank)["SLICES"] = {}  # those of the plan's own sizes
    return loaded


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

"""Runs the programs of all ranks in float64, in one process or as many, and compares them with the unsharded model.

What runs are the stage files of the output folder themselves, under the small header (shrink.py) or their own. The
reference is the user's module, or for a described model the one in compiler/reference, under plain autograd. Loss,
every gradient and every weight are compared in each of three optimizer steps, and every choice of an expert.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from moec.compiler.check import CHECKS, Report, check, to_tell
from moec.compiler.emit import emit
from moec.compiler.program import Program
from moec.compiler.verify.compare import Comparison, compare
from moec.compiler.verify.expected import Expected, expected
from moec.compiler.verify.find_fault import Edit, differs, edits_of, fault_text, locate
from moec.compiler.verify.memory import check_memory
from moec.compiler.verify.processes import Failed, run_processes
from moec.compiler.verify.run_ranks import Outcome, Setting, one_thread, run_all, run_one_step, written
from moec.compiler.verify.shrink import Trial, exact, shrink
from moec.dsl.plan import Plan


@dataclass(frozen=True, slots=True)
class Tested:
    """One run of all ranks: how, and how it compares with the unsharded model."""

    processes: int  # 1: all ranks in one
    trial: Trial
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verify found. `files` are those that it speaks of; `checked` is without numbers, at the plan's own sizes."""

    program: Program
    files: Mapping[str, str]
    edits: tuple[Edit, ...]
    checked: Report | None
    tested: tuple[Tested, ...]
    faults: tuple[str, ...]
    seconds: float
    unjudged: tuple[str, ...] = ()  # files that are not as moec writes them, and at which nothing here looks

    @property
    def equal(self) -> bool:
        return not self.faults

    @property
    def errors(self) -> dict[str, float]:
        """By kind, the largest of all tensors, ranks and steps, relative; infinite where nothing ran."""
        largest = Comparison.failed().errors if not self.tested else self.tested[0].comparison.errors
        return {kind: max([largest[kind], *(run.comparison.errors[kind] for run in self.tested)]) for kind in largest}

    @property
    def shrunk(self) -> tuple[str, ...]:
        return self.tested[0].trial.changes if self.tested else ()


def verify(
    plan: Plan,
    program: Program,
    build: Path | None = None,
    output: Path | None = None,
    exact_shape: bool = False,
    torchrun: bool = False,
) -> Verdict:
    """Prove the emitted programs, or those that are in the folder `build`, equal to the unsharded model.

    The emitted ones are as for the folder `output`. At small sizes, or with `exact_shape` at the plan's own; with
    `torchrun` also as a process each. Raises PlanError where the machine is too small for that.
    """
    started = time.perf_counter()
    if exact_shape:
        check_memory(program)
    full = emit(program, output=build or output)
    edits = edits_of(full, build) if build is not None else []
    texts = {edit.file: edit.text for edit in edits}
    files = full | texts
    unreadable = tuple(edit.unreadable for edit in edits if edit.unreadable)
    if unreadable:
        return Verdict(program, files, tuple(edits), None, (), unreadable, time.perf_counter() - started)
    own_schedule = any(edit.file.startswith("rank_") for edit in edits)
    trial = exact(program) if exact_shape else shrink(program, plan.schedule.accumulate if own_schedule else None)
    checked = _checked(program, files)
    with one_thread():
        tested = _test(trial, emit(trial.program, trial.sizing, double=True), texts, edits, torchrun)
    numbers = [_on(run, fault) for run in tested for fault in run.comparison.faults]
    faults = _with_checked(checked, numbers, edits)
    unjudged = ("main.py",) if build is not None and differs(build / "main.py", full["main.py"]) else ()
    return Verdict(program, files, tuple(edits), checked, tested, faults, time.perf_counter() - started, unjudged)


def _checked(program: Program, files: Mapping[str, str]) -> Report:
    """The check, and where only words of the text keep it from going on, what it finds beside these."""
    report = check(program, files)
    if not report.faults or not all(fault.check == "text" and fault.by_numbers for fault in report.faults):
        return report
    rest = check(program, files, [part for part in CHECKS if part != "text"])
    return replace(report, faults=(*report.faults, *rest.faults))


def _with_checked(checked: Report, numbers: list[str], edits: Sequence[Edit]) -> tuple[str, ...]:
    """What the check without numbers found comes first, since it names the instruction.

    Programs that were edited by hand may compute the same by another way, which it does not follow: numbers decide.
    """
    open_to_numbers = [fault for fault in checked.faults if fault.by_numbers or fault.check == "values"]
    followed = [fault for fault in checked.faults if not edits or numbers or fault not in open_to_numbers]
    return (*(str(fault) for fault in to_tell(followed)), *numbers)


def _on(run: Tested, fault: str) -> str:
    return fault if run.processes == 1 else f"as {run.processes} processes: {fault}"


def _test(
    trial: Trial, emitted: Mapping[str, str], texts: Mapping[str, str], edits: Sequence[Edit], torchrun: bool
) -> tuple[Tested, ...]:
    with written({**emitted, **texts}) as folder:
        setting = Setting.of(folder)
        true = expected(trial, setting)
        first = Tested(1, trial, _compare(trial, setting, true, emitted, edits))
        if not torchrun or not first.comparison.equal:
            return (first,)
        try:
            outcomes = run_processes(folder, setting.job.world_size, trial.units, bool(edits))
        except Failed as failed:
            return (first, Tested(setting.job.world_size, trial, Comparison.failed(str(failed))))
        return (first, Tested(setting.job.world_size, trial, compare(trial, true, outcomes)))


def _compare(
    trial: Trial, setting: Setting, true: Expected, emitted: Mapping[str, str], edits: Sequence[Edit]
) -> Comparison:
    folder = setting.folder
    try:
        outcomes: list[Outcome] = run_all(setting, trial.units, bool(edits))
    except Exception as fault:
        return Comparison.failed(fault_text(fault, folder, edits))
    comparison = compare(trial, true, outcomes)
    if comparison.equal or not edits:
        return comparison
    with written(emitted) as good:
        found = locate(good, folder, edits, lambda place: run_one_step(place, trial.units))
    return Comparison(comparison.errors, comparison.decisions, (*found, *comparison.faults))

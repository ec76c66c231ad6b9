"""Writes certificate.json: what was proved of the programs of a folder, and what runs at which sizes have shown.

The files of a folder are named by digests (runtime/certificate.py). A run in numbers speaks for the stages' bodies on
its mesh and schedule, whatever sizes they are used with later; the check without numbers speaks for all files as they
are.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

import moec
from moec.compiler.check import Report
from moec.compiler.emit import FULL
from moec.compiler.program import Program
from moec.compiler.verify.compare import TOLERANCE
from moec.compiler.verify.run_ranks import STEPS
from moec.compiler.verify.statement import statement
from moec.compiler.verify.verify import Tested, Verdict
from moec.runtime.certificate import CERTIFICATE, digest_of_bodies, digests_of

Run = dict[str, object]

_EMITTED = "as moec emits them for these sizes"


def compiled_certificate(program: Program, files: Mapping[str, str], checked: Report, folder: Path) -> str:
    """Of files that passed their check and are about to be written; runs of before that speak for them stay."""
    runs = _runs_that_hold(folder, program, files)
    passed = not checked.faults and all(run["equal"] for run in runs)
    return _text(program, files, checked, runs, [checked.claim], passed)


def verified_certificate(verdict: Verdict, folder: Path) -> str:
    """Of the files that a verdict is about, with the runs of another kind that the folder's certificate has of them."""
    assert verdict.checked is not None, "nothing was run"
    runs = [_run(verdict, run) for run in verdict.tested]
    kinds = [_kind(run) for run in runs]
    before = _runs_that_hold(folder, verdict.program, verdict.files)
    runs += [run for run in before if _kind(run) not in kinds]
    said = [verdict.checked.claim, *statement(verdict)[1:]] if not verdict.checked.faults else statement(verdict)
    return _text(verdict.program, verdict.files, verdict.checked, runs, said, verdict.equal)


def is_of(folder: Path, files: Mapping[str, str]) -> bool:
    """Are these the files in the folder?"""
    try:
        there = {name: (folder / name).read_text(encoding="utf-8") for name in files}
        return digests_of(there) == digests_of(files)
    except (OSError, UnicodeDecodeError):
        return False


def _text(
    program: Program,
    files: Mapping[str, str],
    checked: Report,
    runs: Sequence[Run],
    statement: Sequence[str],
    passed: bool,
) -> str:
    record = {
        "plan": program.plan.name,
        "moec": moec.__version__,
        "passed": passed,
        "programs": asdict(digests_of(files)),
        "static": {
            "proved": not checked.faults,
            "ranks": checked.ranks,
            "classes": checked.classes,
            "faults": [str(fault) for fault in checked.faults],
        },
        "numbers": list(runs),
        "statement": list(statement),
    }
    return json.dumps(record, indent=2) + "\n"


def _run(verdict: Verdict, run: Tested) -> Run:
    program, comparison = verdict.program, run.comparison
    own = [edit.file for edit in verdict.edits if edit.file.startswith("rank_")]
    return {
        "bodies": digest_of_bodies(verdict.files),
        **_setting(program),
        "rank_files": digests_of(verdict.files).ranks if own else _EMITTED,
        "processes": run.processes,
        "exact_shape": run.trial.sizing == FULL,
        "sizes": dict(run.trial.sizes),
        "layers": run.trial.layers,
        "micro_batches": run.trial.program.plan.schedule.accumulate,
        "dtype": "float64",
        "steps": STEPS,
        "tolerance": TOLERANCE,
        "largest_errors": {kind: error if math.isfinite(error) else None for kind, error in comparison.errors.items()},
        "choices_of_experts": comparison.decisions.choices,
        "equal": comparison.equal,
        "torch": torch.__version__,
    }


def _kind(run: Run) -> tuple[object, object]:
    return run["processes"], run["exact_shape"]


def _setting(program: Program) -> Run:
    """What a run depends on beside the bodies, and the sizes that it states."""
    axes = {axis.name: {"size": axis.size, "over": list(axis.over)} for axis in program.plan.mesh.axes}
    return {"moec": moec.__version__, "mesh": axes, "schedule": program.plan.schedule.kind}


def _runs_that_hold(folder: Path, program: Program, files: Mapping[str, str]) -> list[Run]:
    """Runs in the certificate of a folder that speak for these files too, which are about to take their place."""
    try:
        runs = json.loads((folder / CERTIFICATE).read_text(encoding="utf-8"))["numbers"]
        fixed = {"bodies": digest_of_bodies(files), **_setting(program)}
        return [run for run in runs if run | fixed == run and run["rank_files"] == _EMITTED]
    except (OSError, ValueError, TypeError, KeyError):
        return []

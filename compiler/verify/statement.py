"""Says in a few lines what was proved of rank programs, for which shapes, and what was only tested."""

from collections.abc import Iterator

from moec.compiler.emit import FULL
from moec.compiler.verify.compare import TOLERANCE
from moec.compiler.verify.run_ranks import STEPS
from moec.compiler.verify.verify import Tested, Verdict


def statement(verdict: Verdict) -> tuple[str, ...]:
    """Lines for a person. What was not shown is not in them."""
    if verdict.checked is None:
        return ("nothing was run, since what is in the folder cannot be",)
    return tuple(_lines(verdict))


def _lines(verdict: Verdict) -> Iterator[str]:
    checked = verdict.checked
    assert checked is not None
    if not checked.faults:
        yield checked.statement
    for run in verdict.tested:
        yield _how(verdict, run)
    if verdict.shrunk:
        yield f"shrunk: {', '.join(verdict.shrunk)}"
    elif verdict.tested and verdict.tested[0].trial.sizing == FULL:
        yield "at the plan's own sizes, with all its layers and micro-batches"
    if verdict.edits:
        yield _edited(verdict)
        casts = [f"{edit.file}:{line}" for edit in verdict.edits for line in edit.casts]
        if casts:
            yield f"all of it ran in float64, which says nothing of precisions: see {', '.join(casts)}"
        if verdict.equal and checked.faults:
            yield f"by another way than moec's, so only as far as numbers tell: {checked.faults[0]}"
    if verdict.unjudged:
        yield f"{' and '.join(verdict.unjudged)} is not what moec writes, and was not judged: no certificate covers it"
    numbers = max(verdict.errors.values()) <= TOLERANCE
    shown = ", ".join(f"{kind} {error:.1e}" for kind, error in verdict.errors.items())
    yield f"{'equal to' if numbers else 'DIFFERENT FROM'} the unsharded model; largest relative errors: {shown}"
    yield from _decisions(verdict)
    if not checked.faults and verdict.equal:
        yield _reach(verdict)


def _how(verdict: Verdict, run: Tested) -> str:
    ranks = verdict.program.world_size
    where = "in one process" if run.processes == 1 else f"as {run.processes} processes over gloo"
    return f"ran the programs of all {ranks} ranks {where}, in float64, {STEPS} optimizer steps"


def _reach(verdict: Verdict) -> str:
    sizes = "small sizes" if verdict.shrunk else "these sizes too"
    what = "what regions compute was tested on some"
    return f"the first line holds for all inputs at the plan's own sizes; {what}, at {sizes}"


def _edited(verdict: Verdict) -> str:
    files = [f"{edit.file} ({edit.lines} {'line' if edit.lines == 1 else 'lines'})" for edit in verdict.edits]
    kept = "and still the same computation" if verdict.equal else "and no longer the same computation"
    return f"edited by hand: {', '.join(files)}; {kept}"


def _decisions(verdict: Verdict) -> Iterator[str]:
    """Of routing, which has to agree exactly."""
    found = [run.comparison.decisions for run in verdict.tested]
    if any(each.faults for each in found):
        return  # said among the faults
    if any(each.choices is None for each in found):
        if all(max(run.comparison.errors.values()) < float("inf") for run in verdict.tested):
            yield "choices of experts were not compared: these programs do not make them by moec's functions"
        return
    choices = sum(each.choices or 0 for each in found)
    if choices:
        yield f"all {choices:,} choices of experts, dropped ones too, are the same"

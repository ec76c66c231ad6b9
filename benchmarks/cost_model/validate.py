"""Holds the cost model against published runs: errors of step time and memory, by the table that they come from.

    python benchmarks/cost_model/validate.py [--group NAME] [--runs FILE.json] [--rows]

With `--runs`, rows of a file in either form that published.py reads are predicted with the constants as they are.
"""

import argparse
import sys
from collections.abc import Sequence

from as_plan import why_not
from errors import constant_rate, errors_of
from fit import left_out, model
from groups import GROUPS, Group
from predict import Case, case_of
from published import Run, read, read_all

GIVEN = "given"


def main() -> None:
    options = _options()
    runs = {GIVEN: read(options.runs)} if options.runs else read_all()
    for name, rows in runs.items():
        if not options.group or name == options.group:
            _say(name, rows, options.rows or bool(options.runs))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--runs", help="a file of runs that the constants know nothing of")
    parser.add_argument("--group", help="one table alone")
    parser.add_argument("--rows", action="store_true", help="a line a row")
    return parser.parse_args()


def _say(name: str, runs: Sequence[Run], rows: bool) -> None:
    group = Group("Predicted with the constants as they are.") if name == GIVEN else GROUPS.get(name, Group())
    cases = [case for run in runs if not run.doubt for case in [_case(run)] if case is not None]
    skipped = [run for run in runs if run.doubt or why_not(run)]
    print(f"\n{name}: {len(cases)} of {len(runs)} rows. {group.fitted}")
    for reason in sorted({run.doubt or why_not(run) for run in skipped}):
        print(f"  left out, {sum((run.doubt or why_not(run)) == reason for run in skipped)}: {reason}")
    if not cases:
        return
    predicted = [case.seconds() for case in cases]
    if rows:
        for case, seconds in zip(cases, predicted, strict=True):
            measured = case.run.seconds
            print(f"  {case.run.id:56s} {measured:9.4f} s {seconds:9.4f} s {seconds / measured - 1:+7.1%}", flush=True)
    _say_errors(cases, predicted)
    apart = [n for n, case in enumerate(cases) if not group.fits(case.run)]
    if 0 < len(apart) < len(cases):
        print(f"  of these held out  {errors_of([predicted[n] for n in apart], [cases[n].run.seconds for n in apart])}")
    if group.leave_out:
        print(f"  rows left out      {errors_of(*left_out(cases, group, lambda case: case.run.id))}")
        print(f"  models left out    {errors_of(*left_out(cases, group, model))}")
    _say_constant(cases)
    _say_memory(cases, rows)
    for peer, error in group.peers.items():
        print(f"  {peer:18s} {error}")


def _say_errors(cases: Sequence[Case], predicted: Sequence[float]) -> None:
    """Of runs that share out weights, which no program of moec does, apart."""
    for title, shared in (("as they are", False), ("weights shared out", True)):
        rows = [n for n, case in enumerate(cases) if case.practice.sharded_weights == shared]
        if rows:
            print(f"  {title:18s} {errors_of([predicted[n] for n in rows], [cases[n].run.seconds for n in rows])}")


def _case(run: Run) -> Case | None:
    if why_not(run):
        return None
    try:
        return case_of(run)
    except Exception as fault:  # a plan that does not compile is a row that is not predicted
        print(f"  not predicted: {run.id}: {type(fault).__name__} {str(fault).partition(chr(10))[0]}", file=sys.stderr)
        return None


def _say_constant(cases: Sequence[Case]) -> None:
    steps = [case for case in cases if case.run.of == "step"]
    if steps:
        measured = [case.run.seconds for case in steps]
        constant = constant_rate([case.flops / case.run.gpus for case in steps], measured)
        print(f"  a constant FLOP/s  {errors_of(constant, measured)}")


def _say_memory(cases: Sequence[Case], rows: bool) -> None:
    weighed = [case for case in cases if case.run.memory]
    if not weighed:
        return
    found = [case.memory() for case in weighed]
    if rows:
        for case, size in zip(weighed, found, strict=True):
            line = f"  {case.run.id:56s} {case.run.memory / 2**30:8.2f} GiB {size / 2**30:8.2f} GiB"
            print(f"{line} {size / case.run.memory - 1:+7.1%}")
    print(f"  peak memory        {errors_of(found, [case.run.memory for case in weighed])}")


if __name__ == "__main__":
    main()

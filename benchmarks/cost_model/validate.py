"""Holds the cost model against published runs: errors of step time and memory, by the table that they come from.

    python benchmarks/cost_model/validate.py [--group NAME] [--runs FILE.json] [--rows]

With `--runs`, rows of a file in either form that published.py reads are predicted with the constants as they are. What
is left out is said with the reason, and so is what was assumed where a row does not say it.
"""

import argparse
from collections.abc import Iterable, Sequence

from as_plan import why_not
from errors import constant_rate, errors_of
from fit import left_out, model
from groups import GROUPS, Group
from predict import Case, case_of
from published import Run, read_all, read_rows

GIVEN = "given"

Reason = tuple[str, str]
"""The name of a row, and what is said of it."""


def main() -> None:
    options = _options()
    if options.runs:
        _say(GIVEN, *read_rows(options.runs), rows=True)
        return
    for name, runs in read_all().items():
        if not options.group or name == options.group:
            _say(name, runs, [], options.rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--runs", help="a file of runs that the constants know nothing of")
    parser.add_argument("--group", help="one table alone")
    parser.add_argument("--rows", action="store_true", help="a line a row")
    return parser.parse_args()


def _say(name: str, runs: Sequence[Run], unread: Sequence[Reason], rows: bool) -> None:
    group = Group("Predicted with the constants as they are.") if name == GIVEN else GROUPS.get(name, Group())
    tried = [(run, _predicted(run)) for run in runs]
    found = [each for _, each in tried if not isinstance(each, str)]
    print(f"\n{name}: {len(found)} of {len(runs) + len(unread)} rows. {group.fitted}")
    if found:
        _say_predicted([case for case, _ in found], [seconds for _, seconds in found], group, rows)
    _say_reasons("left out", [*unread, *((run.id, why) for run, why in tried if isinstance(why, str))], rows)
    _say_reasons("assumed", ((case.run.id, what) for case, _ in found for what in case.run.assumed), rows)


def _predicted(run: Run) -> tuple[Case, float] | str:
    """A run with its seconds, or why it has none."""
    reason = run.doubt or why_not(run)
    if reason:
        return reason
    try:
        case = case_of(run)
        return case, case.seconds()
    except Exception as fault:  # a plan that does not compile is a row that is not predicted
        return f"{type(fault).__name__} {str(fault).partition(chr(10))[0]}"


def _say_reasons(title: str, reasons: Iterable[Reason], named: bool) -> None:
    """Each with how many rows it holds for, and which."""
    by_reason: dict[str, list[str]] = {}
    for row, reason in reasons:
        by_reason.setdefault(reason, []).append(row)
    for reason, names in sorted(by_reason.items()):
        print(f"  {title}, {len(names)}: {reason}{': ' if named else ''}{', '.join(names) if named else ''}")


def _say_predicted(cases: Sequence[Case], predicted: Sequence[float], group: Group, rows: bool) -> None:
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

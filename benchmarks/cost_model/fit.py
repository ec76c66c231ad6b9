"""How the fitted constants of the hardware table were got: prints them.

python benchmarks/cost_model/fit.py
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from as_plan import why_not
from groups import GROUPS, Group
from predict import Case, case_of
from published import read_all

from moec.compiler.cost.calibrate.least_squares import least_squares
from moec.compiler.cost.machine import Machine


def main() -> None:
    for name, runs in read_all().items():
        group = GROUPS.get(name, Group())
        cases = [case_of(run) for run in runs if group.fits(run) and not run.doubt and not why_not(run)]
        if cases:
            constants = ", ".join(f"{key} = {value:.3f}" for key, value in fit(cases, group.constants).items())
            print(f"{cases[0].machine.name}, on {len(cases)} rows of {name}: {constants}")


def fit(cases: Sequence[Case], constants: Sequence[str]) -> dict[str, float]:
    """The constants with which the cases have the least squares of errors."""

    def predicted(values: Sequence[float]) -> list[float]:
        return [case.seconds(lambda machine: varied(machine, constants, values)) for case in cases]

    start = [float(vars_of(cases[0].machine)[name]) for name in constants]
    values = least_squares(predicted, [case.run.seconds for case in cases], start)
    return dict(zip(constants, values, strict=True))


def varied(machine: Machine, constants: Sequence[str], values: Sequence[float]) -> Machine:
    return replace(machine, **dict(zip(constants, values, strict=True)))


def vars_of(machine: Machine) -> dict[str, float]:
    """Its efficiencies."""
    return {"efficiency": machine.efficiency, "memory_efficiency": machine.memory_efficiency}


def left_out(cases: Sequence[Case], group: Group, alike: Callable[[Case], object]) -> tuple[list[float], list[float]]:
    """Rows that are alike with constants that are fitted on all other rows; and what was measured."""
    predicted: list[float] = []
    measured: list[float] = []
    for those in dict.fromkeys(alike(case) for case in cases):
        found = fit([case for case in cases if alike(case) != those], group.constants)
        for case in cases:
            if alike(case) == those:
                values = list(found.values())
                predicted.append(case.seconds(lambda m, values=values: varied(m, group.constants, values)))
                measured.append(case.run.seconds)
    return predicted, measured


def model(case: Case) -> tuple[int, int]:
    """Rows of one model, however many layers it was cut to."""
    return case.run.shape.hidden, case.run.shape.ffn


if __name__ == "__main__":
    main()

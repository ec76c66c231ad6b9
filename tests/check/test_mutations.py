"""Every single fault that is seeded into a correct program is found, and its line is named."""

from collections import Counter
from pathlib import Path

import pytest
from mutate import KINDS, Mutant, mutants

from moec.compiler.check import check

PLANS = (
    "examples/tiny_moe.plan",
    "examples/sequence_parallel.plan",
    "examples/convnet.plan",
    "tests/equivalence/plans/tied.plan",
    "tests/equivalence/plans/sequence_capacity.plan",
)
NAMED = 0.9


def seeded(
    compile_once, plans: tuple[str, ...], each: int
) -> tuple[list[tuple[str, Mutant]], list[tuple[str, Mutant]], Counter[str]]:
    """Mutants that are missed, those whose line the first message does not name, and how many there are of a kind."""
    missed, unnamed, kinds = [], [], Counter()
    for plan in plans:
        program, files = compile_once(Path(plan))
        for mutant in mutants(files, each):
            kinds[mutant.kind] += 1
            faults = check(program, files | {mutant.file: mutant.text}).faults
            if not faults:
                missed.append((plan, mutant))
            elif not mutant.named(str(faults[0])):
                unnamed.append((plan, mutant))
    return missed, unnamed, kinds


def test_a_few_of_every_kind(compile_once) -> None:
    missed, unnamed, kinds = seeded(compile_once, PLANS, each=1)
    assert not missed
    assert set(kinds) == set(KINDS) and len(kinds) >= 60
    assert len(unnamed) <= (1 - NAMED) * kinds.total(), unnamed


@pytest.mark.sweep
def test_many_of_every_kind(compile_once) -> None:
    plans = (
        *PLANS,
        "examples/mixer_moe.plan",
        "tests/equivalence/plans/two_folds.plan",
        "tests/equivalence/plans/uneven_stages.plan",
    )
    missed, unnamed, kinds = seeded(compile_once, plans, each=8)
    assert not missed
    assert len(unnamed) <= (1 - NAMED) * kinds.total(), unnamed

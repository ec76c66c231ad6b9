"""Meta's spmd_types accepts what moec says of the collectives of every emitted program, and refuses what is wrong.

The emitted text of each stage runs forward and backward, in the small sizing, under spmd_types' checker in its local
mode and a fake process group. A collective of the text is one of spmd_types', from the type that moec gives its operand
to the type that it gives the result; between them spmd_types finds the types of every operator of every region. Types
of weights are read from the text: V where it says that they are split, R over the group that sums their gradient, else
I. A region's gradients have the types that spmd_types' `backward_type` gives its values.

Where the two differ, and what is done about it, is in benchmarks/checkers/README.md. Stages, schedules,
slices, and which of two values of one type is meant, are outside of its types.
"""

from collections import Counter
from pathlib import Path

import mutate_ranks
import mutate_units
import pytest
from typed_stage import check_types, refusal

from moec.compiler.emit import SMALL, emit

ROOT = Path(__file__).parents[3]
PLANS = sorted(
    path.relative_to(ROOT)
    for folder in ("examples", "tests/equivalence/plans")
    for path in (ROOT / folder).glob("*.plan")
)
REFUSED = (
    *("drop a sum, forward", "drop a sum, backward", "double a sum, forward", "double a sum, backward"),
    *("maximum for sum", "a sum over the wrong axis", "gather for scatter", "scatter for gather"),
    *("the loss is counted on every rank", "the gradients of a family are not summed"),
    *("the gradients of a family are summed twice", "a part of the batch as another"),
)
"""Kinds of faults that are errors of type, every one of them."""

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")


LARGE = ("30b_moe", "llama_405b")
MARKED = [pytest.param(plan, marks=pytest.mark.sweep) if plan.stem in LARGE else plan for plan in PLANS]


@pytest.mark.parametrize("plan", MARKED, ids=str)
def test_every_collective_is_accepted(plan: Path, compile_once) -> None:
    program, _ = compile_once(plan)
    check_types(program, emit(program, SMALL), {})


def test_what_is_an_error_of_type_is_refused(compile_once) -> None:
    kinds: Counter[str] = Counter()
    for plan in ("examples/tiny_moe.plan", "examples/sequence_parallel.plan"):
        program, _ = compile_once(Path(plan))
        small = emit(program, SMALL)
        for kind in REFUSED:
            table = mutate_units.KINDS if kind in mutate_units.KINDS else mutate_ranks.KINDS
            for mutant in [*table[kind](small)][:4]:
                kinds[kind] += 1
                by, why = refusal(program, small, {mutant.file: mutant.text})
                assert by == "types", (plan, mutant.kind, mutant.now, why)
    assert set(kinds) == set(REFUSED)

"""Every single fault that is seeded into a correct program is found, and its line is named."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import mutate_ranks
import mutate_regions
import mutate_units
import pytest
from mutate import Mutant

from moec.compiler.check import check
from moec.compiler.emit import emit
from moec.compiler.folder import write_folder
from moec.compiler.verify import verify

PLANS = (
    "examples/tiny_moe.plan",
    "examples/sequence_parallel.plan",
    "examples/convnet.plan",
    "tests/equivalence/plans/tied.plan",
    "tests/equivalence/plans/sequence_capacity.plan",
)
MORE = (
    "examples/mixer_moe.plan",
    "tests/equivalence/plans/two_folds.plan",
    "tests/equivalence/plans/uneven_stages.plan",
)
NAMED = 0.9


@dataclass(slots=True)
class Score:
    """How many mutants there are of a kind, those that are missed, and those that the first message does not name."""

    kinds: Counter[str] = field(default_factory=Counter)
    missed: list[tuple[str, Mutant]] = field(default_factory=list)
    unnamed: list[tuple[str, Mutant, str]] = field(default_factory=list)

    def note(self, plan: str, mutant: Mutant, faults: Iterable[object]) -> None:
        self.kinds[mutant.kind] += 1
        first = next((str(fault) for fault in faults), None)
        if first is None:
            self.missed.append((plan, mutant))
        elif not mutant.named(first):
            self.unnamed.append((plan, mutant, first))

    def is_good(self) -> bool:
        return not self.missed and len(self.unnamed) <= (1 - NAMED) * self.kinds.total()


def checked(compile_once, plans: tuple[str, ...], each: int, again: bool = True) -> Score:
    """By the check without numbers; kinds that one plan had, the next one has again or not."""
    score = Score()
    for plan in plans:
        program, files = compile_once(Path(plan))
        for kinds in (mutate_units.KINDS, mutate_ranks.KINDS):
            done = set() if again else {*score.kinds}
            for mutant in kinds.mutants(files, each):
                if mutant.kind in done:
                    continue
                score.note(plan, mutant, check(program, files | {mutant.file: mutant.text}).faults)
    return score


def verified(compile_once, plans: tuple[str, ...], each: int, folder: Path, step: int = 1) -> Score:
    """By `moec verify` of a folder in which one file is changed, in every `step`-th way."""
    score = Score()
    for number, plan in enumerate(plans):
        program, _ = compile_once(Path(plan))
        build = folder / str(number) / "build"
        files = emit(program, output=build)
        write_folder(build, files)
        for mutant in [*mutate_regions.KINDS.mutants(files, each)][::step]:
            (build / mutant.file).write_text(mutant.text, encoding="utf-8")
            verdict = verify(program.plan, program, build)
            (build / mutant.file).write_text(files[mutant.file], encoding="utf-8")
            assert verdict.equal == (not verdict.faults)
            score.note(plan, mutant, verdict.faults)
    return score


def test_a_few_of_every_kind(compile_once) -> None:
    score = checked(compile_once, (*PLANS, MORE[0]), each=1, again=False)
    assert score.is_good(), (score.missed, score.unnamed)
    assert set(score.kinds) == {*mutate_units.KINDS, *mutate_ranks.KINDS} and len(score.kinds) >= 70


def test_what_regions_compute(compile_once, tmp_path: Path) -> None:
    score = verified(compile_once, PLANS[2:3], each=1, folder=tmp_path, step=3)
    assert score.is_good(), (score.missed, score.unnamed)
    assert len(score.kinds) >= 3


@pytest.mark.sweep
def test_many_of_every_kind(compile_once) -> None:
    score = checked(compile_once, (*PLANS, *MORE), each=8)
    assert score.is_good(), (score.missed, score.unnamed)


@pytest.mark.sweep
def test_all_that_regions_compute(compile_once, tmp_path: Path) -> None:
    score = verified(compile_once, (*PLANS, *MORE), each=1, folder=tmp_path)
    assert score.is_good(), (score.missed, score.unnamed)
    assert set(score.kinds) == set(mutate_regions.KINDS)

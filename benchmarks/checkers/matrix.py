"""Which checker finds which kind of fault: python benchmarks/checkers/matrix.py, and --each N for more places of each.

Faults are seeded one at a time into the programs of several plans (tests/check/mutate*.py). Each part of moec's check
without numbers judges alone; so do moec's proof in numbers, and spmd_types on one rank of each stage. Prints a table in
Markdown, the kinds that one checker alone finds, and the alarms on programs without a fault.
"""

import argparse
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests/check"), str(ROOT / "tests/check/second_opinion")]

import mutate_ranks  # noqa: E402
import mutate_regions  # noqa: E402
import mutate_units  # noqa: E402
from mutate import Kinds, Mutant  # noqa: E402
from typed_stage import refusal  # noqa: E402

from moec.compiler.check import CHECKS, check  # noqa: E402
from moec.compiler.emit import SMALL, emit  # noqa: E402
from moec.compiler.folder import write_folder  # noqa: E402
from moec.compiler.pipeline import compile_plan  # noqa: E402
from moec.compiler.program import Program  # noqa: E402
from moec.compiler.verify import verify  # noqa: E402
from moec.dsl import read_plan  # noqa: E402

PLANS = (
    "examples/tiny_moe.plan",
    "examples/sequence_parallel.plan",
    "examples/convnet.plan",
    "examples/mixer_moe.plan",
    "tests/equivalence/plans/sequence_capacity.plan",
)
TABLES: Mapping[str, Kinds] = {
    "What a stage calls": mutate_units.KINDS,
    "What a rank is told": mutate_ranks.KINDS,
    "What a region computes": mutate_regions.KINDS,
}
NUMBERS, TYPES = "numbers", "spmd_types"
CHECKERS = (*CHECKS, NUMBERS, TYPES)


@dataclass(frozen=True, slots=True)
class Judged:
    """One mutant: which checkers find it, and whether the first message of `moec verify` names its line."""

    kind: str
    plan: str
    now: str
    by: frozenset[str]
    named: bool


@dataclass(slots=True)
class Bench:
    """A plan with its programs, of which one file at a time is changed in a folder."""

    plan: str
    program: Program
    files: dict[str, str]
    small: dict[str, str]
    build: Path

    @staticmethod
    def of(plan: str, folder: Path) -> "Bench":
        program = compile_plan(read_plan(str(ROOT / plan), []))
        build = folder / Path(plan).stem
        files = emit(program, output=build)
        write_folder(build, files)
        return Bench(plan, program, files, emit(program, SMALL), build)

    def judge(self, mutant: Mutant) -> Judged:
        (self.build / mutant.file).write_text(mutant.text, encoding="utf-8")
        verdict = verify(self.program.plan, self.program, self.build)
        (self.build / mutant.file).write_text(self.files[mutant.file], encoding="utf-8")
        found: set[str] = set()
        if verdict.checked is None or verdict.checked.faults:
            found = {part for part in CHECKS if self._alone(part, mutant)}
        if not all(run.comparison.equal for run in verdict.tested):
            found.add(NUMBERS)
        if self._refused(mutant):
            found.add(TYPES)
        named = bool(verdict.faults) and mutant.named(verdict.faults[0])
        return Judged(mutant.kind, self.plan, mutant.now, frozenset(found), named)

    def _alone(self, part: str, mutant: Mutant) -> bool:
        """Whether a part finds it where no other is heard; one that the text makes fail has found nothing."""
        try:
            return bool(check(self.program, self.files | {mutant.file: mutant.text}, (part,)).faults)
        except Exception:
            return False

    def _refused(self, mutant: Mutant) -> bool:
        """The same change in the small sizing, of which the slices of ranks are other ones."""
        same = [each for each in _all_of(mutant.kind, self.small) if (each.file, each.now) == (mutant.file, mutant.now)]
        text = same[0].text if same else mutant.text
        return refusal(self.program, self.small, {mutant.file: text})[0] == "types"


def _all_of(kind: str, files: Mapping[str, str]) -> Iterator[Mutant]:
    for kinds in TABLES.values():
        if kind in kinds:
            yield from kinds[kind](files)


def main() -> None:
    parser = argparse.ArgumentParser(description="Which checker finds which kind of fault.")
    parser.add_argument("--each", type=int, default=1, help="places of every kind in every plan")
    parser.add_argument("--plans", nargs="*", default=PLANS)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    judged: list[Judged] = []
    with tempfile.TemporaryDirectory(prefix="moec-matrix-") as folder:
        benches = [Bench.of(plan, Path(folder)) for plan in given.plans]
        for bench in benches:
            for kinds in TABLES.values():
                judged += [bench.judge(mutant) for mutant in kinds.mutants(bench.files, given.each)]
            print(f"{bench.plan}: {len(judged)} faults so far", file=sys.stderr, flush=True)
        alarms = [*_alarms(benches)]
    print("\n".join([*_tables(judged), *_summary(judged), *alarms]))


def _tables(judged: list[Judged]) -> Iterator[str]:
    by_kind: dict[str, list[Judged]] = defaultdict(list)
    for each in judged:
        by_kind[each.kind].append(each)
    for title, kinds in TABLES.items():
        yield f"\n### {title}\n"
        yield f"| fault | places | {' | '.join(CHECKERS)} |"
        yield f"|---|---|{'---|' * len(CHECKERS)}"
        for kind in kinds:
            places = by_kind.get(kind, [])
            counts = Counter(checker for each in places for checker in each.by)
            cells = " | ".join(str(counts[checker] or "") for checker in CHECKERS)
            yield f"| {kind} | {len(places)} | {cells} |"


def _summary(judged: list[Judged]) -> Iterator[str]:
    found = [each for each in judged if each.by - {TYPES}]
    yield "\n### In sum\n"
    yield f"- moec finds {len(found)} of {len(judged)} faults of {len({each.kind for each in judged})} kinds."
    yield f"- The first message names the changed line, or the one beside it, for {sum(e.named for e in judged)}."
    yield f"- spmd_types finds {sum(TYPES in each.by for each in judged)}."
    for each in judged:
        if not each.by - {TYPES}:
            yield f"- MISSED: {each.kind} in {each.plan}: `{each.now.strip()}`"
    unnamed = Counter(each.kind for each in judged if not each.named)
    yield f"- Not named: {', '.join(f'{kind} ({count})' for kind, count in unnamed.items()) or 'none'}."
    for checker in CHECKERS:
        alone = Counter(each.kind for each in judged if each.by == {checker})
        kinds = ", ".join(f"{kind} ({count})" for kind, count in alone.items())
        yield f"- Found by {checker} alone: {alone.total()}{f' — {kinds}' if kinds else ''}."


def _alarms(benches: list[Bench]) -> Iterator[str]:
    """On programs as moec emits them."""
    yield "\n### Without a fault\n"
    for bench in benches:
        verdict = verify(bench.program.plan, bench.program, bench.build)
        types = refusal(bench.program, bench.small, {})[1]
        said = [*verdict.faults, *([types] if types else [])]
        yield f"- {bench.plan}: {'; '.join(said) or 'no alarm of any'}"


if __name__ == "__main__":
    main()

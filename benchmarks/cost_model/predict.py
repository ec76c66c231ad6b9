"""The seconds and bytes that the cost model gives for a published run.

What a plan compiles to, and what its text did without memory, is kept in build/cost_model/ under a hash of the plan and
of the code that made it; without the folder all of it is made anew.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

from as_plan import plan_text
from practices import practice_of
from program_of import program_of
from published import Run

from moec.compiler.cost.dry_run import Rank, dry_run
from moec.compiler.cost.machine import Machine, machine_of
from moec.compiler.cost.memory import memory_of
from moec.compiler.cost.model_flops import model_flops
from moec.compiler.cost.practice import Practice
from moec.compiler.cost.practised import practised
from moec.compiler.cost.step import step_time
from moec.compiler.program import Program

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build/cost_model"

_RECORDED = ("recorder.py", "dry_run.py", "kernels.py")
"""Of compiler/cost, what decides how the text is run; the rest only reads it."""


@dataclass(frozen=True, slots=True)
class Case:
    """A run, compiled and run without memory; `ranks` are as its framework would have them."""

    run: Run
    program: Program
    ranks: tuple[Rank, ...]
    practice: Practice
    machine: Machine

    @property
    def flops(self) -> float:
        """Of the model in a step."""
        return model_flops(self.program)

    def seconds(self, change: Callable[[Machine], Machine] | None = None) -> float:
        """Of what was timed: a step, or forward and backward of a layer."""
        machine = change(self.machine) if change else self.machine
        time = step_time(self.program, self.ranks, machine, self.practice)
        if self.run.of == "step":
            return time.seconds
        passes = time.stages[0].forward, time.stages[0].backward
        return sum(each.seconds - sum(each.edges) for each in passes)

    def memory(self) -> int:
        """Bytes of the rank that has most."""
        stages = zip(self.ranks, self.program.stages, strict=True)
        return max(memory_of(rank, stage.schedule).total for rank, stage in stages)


def case_of(run: Run) -> Case:
    """Raises NotExpressible."""
    text, practice = plan_text(run), practice_of(run)
    program, ranks = _recorded(run, text)
    found = tuple(practised(rank, practice) for rank in ranks)
    return Case(run, program, found, practice, machine_of(program.plan))


def _recorded(run: Run, text: str) -> tuple[Program, tuple[Rank, ...]]:
    path = CACHE / f"{sha256(f'{text}{_code()}'.encode()).hexdigest()}.pickle"
    if path.exists():
        return pickle.loads(path.read_bytes())
    program = program_of(run)
    found = program, dry_run(program)
    CACHE.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(found))
    return found


@cache
def _code() -> str:
    """A hash of what compiles plans and runs their text."""
    cost = ROOT / "compiler/cost"
    folders = [ROOT / "compiler", ROOT / "runtime", ROOT / "dsl", Path(__file__).with_name("models")]
    files = [path for folder in folders for path in folder.rglob("*.py") if cost not in path.parents]
    files += [cost / name for name in _RECORDED] + [Path(__file__).with_name("program_of.py")]
    return sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()

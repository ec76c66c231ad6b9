"""The seconds and bytes that the cost model gives for a published run."""

from collections.abc import Callable
from dataclasses import dataclass

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
        return max(memory.total for memory in memory_of(self.program, self.ranks, self.practice))


_KNOWN: dict[str, tuple[Program, tuple[Rank, ...]]] = {}
"""What plans compile to, and what their text did without memory."""


def case_of(run: Run) -> Case:
    """Raises NotExpressible."""
    text, practice = plan_text(run), practice_of(run)
    if text not in _KNOWN:
        program = program_of(run)
        _KNOWN[text] = program, dry_run(program)
    program, ranks = _KNOWN[text]
    found = tuple(practised(rank, practice) for rank in ranks)
    return Case(run, program, found, practice, machine_of(program.plan))

"""Pairs of plans of one model: drawn, compiled, and all their ranks run in this process."""

import ast
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from draw_plan import plans
from hypothesis import strategies as st
from plain import read_plainly, save

from moec.checkpoint.folders import latest
from moec.compiler.emit import emit
from moec.compiler.pipeline import compile_plan
from moec.compiler.verify.run_ranks import load_ranks, written
from moec.dsl import PlanError, read_plan
from moec.runtime.checkpoint.read import Checkpoint
from moec.runtime.checkpoint.restore import check_model, restore, unset
from moec.runtime.data import Synthetic
from moec.runtime.initial import Initial
from moec.runtime.job import read_job
from moec.runtime.place import place_of
from moec.runtime.run import Run
from moec.runtime.simulated import simulate


@dataclass(frozen=True)
class Pair:
    """A plan, and settings under which the same model goes over another mesh."""

    text: str
    changes: tuple[tuple[str, ...], tuple[str, ...]]


@st.composite
def pairs(draw, world=12):
    """Each axis shrinks to a divisor of it, so that whatever could be split still can; stages may be uneven."""
    text = draw(plans(world=world)).replace(
        "train {", f"train {{ precision = {draw(st.sampled_from(['fp64', 'fp32', 'bf16']))}  "
    )
    axes = dict(_axes(text))
    changes = [[], []]
    for name, size in axes.items():
        divisors = [n for n in range(1, size + 1) if size % n == 0 or name == "pp"]
        kept = draw(st.tuples(st.sampled_from(divisors), st.sampled_from(divisors)))
        for change, now in zip(changes, kept, strict=True):
            if now != size:
                change.append(f"mesh.{name}={now}")
    return Pair(text, (tuple(changes[0]), tuple(changes[1])))


def _axes(text):
    """Name and size of the axes that are not folded."""
    body = text[text.index("mesh {") + 6 :].split("}")[0]
    words = body.replace("=", " ").split()
    found = []
    for i, word in enumerate(words[:-1]):
        if words[i + 1].isdecimal() and (i + 2 >= len(words) or words[i + 2] != "over"):
            found.append((word, int(words[i + 1])))
    return found


@dataclass
class Compiled:
    """The programs of all ranks of a plan."""

    folder: Path
    job: object
    ranks: list
    stages: int

    def trained(self, steps, start=None):
        """Runs of all ranks after some steps from the beginning or a checkpoint, and the losses."""
        source = Synthetic(self.job.inputs, 5)

        def program(rank):
            if start is None:
                run = Run(self.ranks[rank], self.job, Initial(3), source)
            else:
                run = Run(self.ranks[rank], self.job, unset, source)
                with Checkpoint.open(latest(start)) as checkpoint:
                    check_model(self.job, checkpoint)
                    restore(run, checkpoint)
            losses = []
            for _ in range(steps):
                self.ranks[rank].step(run)
                losses.append(run.result.loss)
            return run, losses

        results = simulate(len(self.ranks), program, lambda rank: place_of(self.ranks[rank]).groups)
        return [run for run, _ in results], results[0][1]

    def saved(self, runs, folder):
        return read_plainly(save(self, runs, folder))


def compiled(stack: ExitStack, path: Path, changes) -> Compiled | None:
    """None where the changed plan is none."""
    try:
        plan = read_plan(path, changes)
        program = compile_plan(plan)
    except PlanError:
        return None
    folder = stack.enter_context(written(emit(program)))
    units = tuple(_units(folder, n) for n in range(len(program.stages)))
    ranks = load_ranks(folder, range(program.world_size), program.world_size, units, edited=False)
    return Compiled(folder, read_job(folder / "plan.json"), ranks, len(program.stages))


def _units(folder, stage):
    """UNITS as the stage's file states them."""
    tree = ast.parse((folder / f"stage_{stage}.py").read_text())
    (value,) = (line.value for line in tree.body if isinstance(line, ast.Assign) and line.targets[0].id == "UNITS")
    return eval(ast.unparse(value))

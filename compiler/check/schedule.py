"""The schedule of a rank as a list: what `step` calls, one after the other, and on which line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from sys import _getframe
from types import SimpleNamespace

from moec.compiler.check.faults import Fault
from moec.compiler.check.headers import Header
from moec.compiler.check.terms import Site
from moec.compiler.emit.rank_text import step_lines
from moec.compiler.emit.types_text import same_group
from moec.compiler.program import Program

_OF_RUN = ("count_valid", "send", "receive", "exchange", "update", "reduce")
_OF_STAGE = ("forward", "backward", "reduce_gradients")


@dataclass(frozen=True, slots=True)
class Step:
    """One call: what, for which micro-batch or with which neighbour, and the line within `step`."""

    what: str
    line: int


def schedule_faults(program: Program, header: Header, file: str) -> Iterator[Fault]:
    """Where a rank's schedule is not that of its stage; to be told where something else is wrong."""
    stage = program.stages[header.stage]
    counter = program.counter
    same = same_group(program, counter.values[counter.outputs[0]]) if counter else ""
    lines = step_lines(stage, len(program.stages), counter is not None, program.has_loss(stage), same)
    true = _steps("def step(run):\n    pass\n" + "\n".join(f"    {line}" for line in lines) + "\n")
    mine = _steps(header.schedule)
    matcher = SequenceMatcher(None, [step.what for step in true], [step.what for step in mine], autojunk=False)
    own = header.schedule.splitlines()
    pairs = enumerate(zip(own[2:], [*(f"    {line}" for line in lines), "", *own], strict=False))
    place = next((n + 2 for n, (line, written) in pairs if line != written), 0)
    site = Site(file, header.line + place, own[place].strip())
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            continue
        missing = ", ".join(step.what for step in true[a:b][:2])
        more = ", ".join(step.what for step in mine[c:d][:2])
        if missing and more:
            said = f"{more} stands where {missing} is due"
        elif missing:
            said = f"{missing} is missing {'after' if c else 'before'} this"
        else:
            said = f"{more} is not in the schedule"
        yield Fault("meeting", f"rank {header.rank}: {said}", site)


def _steps(text: str) -> Sequence[Step]:
    found: list[Step] = []

    def note(name: str, arguments: tuple[object, ...]) -> str:
        frame = _getframe(2)
        numbers = [str(x) for x in arguments if isinstance(x, int)]
        sides = [x for x in arguments if x in ("PREVIOUS", "NEXT")]
        found.append(Step(" ".join([name, *numbers, *map(str, sides)]), frame.f_lineno))
        return "tensors"

    def recorder(names: Sequence[str], **more: object) -> SimpleNamespace:
        calls = {name: (lambda *a, _name=name, **k: note(_name, a)) for name in names}
        return SimpleNamespace(**calls, **more)

    stage = recorder(_OF_STAGE, count=lambda run: (), ACTIVATIONS_IN=(), GRADIENTS_IN=())
    names = {"stage": stage, "PREVIOUS": "PREVIOUS", "NEXT": "NEXT"}
    exec(compile(text, "step", "exec"), names)
    try:
        names["step"](recorder(_OF_RUN))  # pyright: ignore[reportCallIssue]
    except Exception as fault:
        found.append(Step(f"{type(fault).__name__}", 1))
    return found

"""The schedule of a rank as a list: what `step` calls, one after the other."""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from types import SimpleNamespace

from moec.compiler.check.faults import Fault
from moec.compiler.check.headers import Header
from moec.compiler.check.terms import Site
from moec.compiler.emit.rank_text import step_lines
from moec.compiler.emit.types_text import same_count
from moec.compiler.program import Program

_OF_RUN = ("count_valid", "send", "receive", "exchange", "update", "reduce")
_OF_STAGE = ("forward", "backward", "reduce_gradients")


def schedule_faults(program: Program, header: Header) -> Iterator[Fault]:
    """Where a rank's schedule is not that of its stage; to be told where something else is wrong."""
    stage = program.stages[header.stage]
    counted, has_loss = program.counter is not None, program.has_loss(stage)
    lines = step_lines(stage, len(program.stages), counted, has_loss, same_count(program))
    true = _steps("def step(run):\n    pass\n" + "\n".join(f"    {line}" for line in lines) + "\n")
    mine = _steps(header.schedule)
    matcher = SequenceMatcher(None, true, mine, autojunk=False)
    own = header.schedule.splitlines()
    pairs = enumerate(zip(own[2:], [*(f"    {line}" for line in lines), "", *own], strict=False))
    place = next((n + 2 for n, (line, written) in pairs if line != written), 0)
    site = Site(header.file, header.line + place, own[place].strip())
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            continue
        missing = ", ".join(true[a:b][:2])
        more = ", ".join(mine[c:d][:2])
        if missing and more:
            said = f"{more} stands where {missing} is due"
        elif missing:
            said = f"{missing} is missing {'after' if c else 'before'} this"
        else:
            said = f"{more} is not in the schedule"
        yield Fault("meeting", f"rank {header.rank}: {said}", site)


def _steps(text: str) -> Sequence[str]:
    """What `step` calls: each with the micro-batch or the neighbour that it names."""
    found: list[str] = []

    def note(name: str, arguments: tuple[object, ...]) -> str:
        numbers = [str(x) for x in arguments if isinstance(x, int)]
        sides = [x for x in arguments if x in ("PREVIOUS", "NEXT")]
        found.append(" ".join([name, *numbers, *map(str, sides)]))
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
        found.append(type(fault).__name__)
    return found

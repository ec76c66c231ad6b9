"""Says what is wrong with programs that differ from the model: which line, which value, on which rank."""

import difflib
import inspect
import json
import re
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from moec.runtime import run as run_module
from moec.runtime.certificate import words_of
from moec.runtime.communicator import current
from moec.runtime.tape import Tape


@dataclass(frozen=True, slots=True)
class Edit:
    """A file of a folder that is not what moec emits for the plan."""

    file: str
    text: str
    changes: tuple[tuple[int, str, str], ...]  # line in the folder, what moec emits there, what stands there
    unreadable: str = ""

    @property
    def lines(self) -> int:
        return len(self.changes)

    @property
    def casts(self) -> list[int]:
        """Lines whose change is one of precision, or may be."""
        return [line for line, old, new in self.changes if _precision(old) != _precision(new)]


def _precision(line: str) -> list[str]:
    return sorted(re.findall(r"\b(?:DTYPE|FLOAT|to|type|float|double|half|dtype|bfloat16|(?:float|int)\d+)\b", line))


def differs(path: Path, text: str) -> bool:
    """Is there anything else than this text?"""
    try:
        return path.read_text(encoding="utf-8") != text
    except (OSError, UnicodeDecodeError):
        return True


def edits_of(files: Mapping[str, str], build: Path) -> list[Edit]:
    """Stage and rank files that differ; a header or plan that differs is said to be so, and nothing runs."""
    known = re.compile(r"(?:stage|rank)_\d+\.py")
    strangers = sorted(path.name for path in build.iterdir() if known.fullmatch(path.name) and path.name not in files)
    found = [Edit(name, "", (), f"{name} is not of this plan, which has no such file") for name in strangers]
    for name, text in files.items():
        path = build / name
        try:
            own = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            found.append(Edit(name, "", (), f"{name} cannot be read: {fault}"))
            continue
        if own == text or name == "main.py" or (name == "sizes.py" and words_of(own) == words_of(text)):
            continue
        if name == "plan.json":
            said = _plan_differs(text, own)
            found += [Edit(name, own, (), f"plan.json is not of this plan: {said}")] if said else []
            continue
        if name == "sizes.py":
            line = _changes(text, own)[0]
            found.append(
                Edit(
                    name, own, (line,), f"sizes.py:{line[0]} is not of this plan: `{line[2]}`, and `{line[1]}` is right"
                )
            )
            continue
        unreadable = _syntax(name, own)
        found.append(Edit(name, own, _changes(text, own), unreadable))
    return found


def _plan_differs(emitted: str, own: str) -> str:
    """The first setting that is another."""
    try:
        mine = json.loads(own)
    except ValueError as fault:
        return f"it cannot be read, {fault}"
    return _differs_at("", json.loads(emitted), mine)


def _differs_at(path: str, true: object, mine: object) -> str:
    if isinstance(true, dict) and isinstance(mine, dict):
        for key in dict.fromkeys((*true, *mine)):
            said = _differs_at(f"{path}.{key}" if path else key, true.get(key), mine.get(key))
            if said:
                return said
        return ""
    return "" if true == mine else f"{path} is {json.dumps(mine)}, and {json.dumps(true)} is right"


def _syntax(name: str, text: str) -> str:
    try:
        compile(text, name, "exec")
    except (SyntaxError, ValueError) as fault:
        line = fault.lineno if isinstance(fault, SyntaxError) else 1
        return f"{name}:{line} is no Python: {fault}"
    return ""


def _changes(emitted: str, own: str) -> tuple[tuple[int, str, str], ...]:
    """(line number in the folder, emitted, own) of every changed line."""
    before, after = emitted.splitlines(), own.splitlines()
    found: list[tuple[int, str, str]] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        for offset in range(max(b - a, d - c)):
            old = before[a + offset].strip() if a + offset < b else ""
            new = after[c + offset].strip() if c + offset < d else ""
            found.append((min(c + offset, len(after) - 1) + 1, old, new))
    return tuple(found)


def change_text(edit: Edit, change: tuple[int, str, str]) -> str:
    line, old, new = change
    if not new:
        return f"{edit.file}:{line}: `{old}` is gone"
    if not old:
        return f"{edit.file}:{line}: `{new}` is new"
    return f"{edit.file}:{line}: `{new}` stands in place of `{old}`"


def fault_text(fault: Exception, folder: Path, edits: Sequence[Edit]) -> str:
    """An exception of a run, in the words of the program's own files."""
    frames = [f for f in traceback.extract_tb(fault.__traceback__) if Path(f.filename).parent == folder]
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}, `{frames[-1].line}`" if frames else ""
    notes = "".join(f"; {note}" for note in (fault.__notes__ if hasattr(fault, "__notes__") else ()))
    said = str(fault).strip() or type(fault).__name__
    changed = "\n".join(f"  {change_text(edit, change)}" for edit in edits for change in edit.changes[:3])
    return f"{said}{place}{notes}" + (f"\n{changed}" if changed else "")


@dataclass(frozen=True, slots=True)
class _Event:
    """A region that ran on a rank, with a digest of each tensor that went into it."""

    region: Callable[..., object]
    back: bool
    digests: tuple[float | None, ...]
    line: int
    file: str
    order: int  # among those of all ranks

    @property
    def key(self) -> tuple[str, bool]:
        return self.region.__name__, self.back


class _Recording(Tape):
    """A tape that notes what goes into every region."""

    __slots__ = ()
    events: ClassVar[dict[int, list[_Event]]] = {}
    order: ClassVar[Iterator[int]] = count()

    def run(self, region, *args):
        self._note(region, False, args)
        return super().run(region, *args)

    def back(self, region, *gradients):
        self._note(region, True, gradients)
        return super().back(region, *gradients)

    def _note(self, region, back: bool, tensors: Sequence[object]) -> None:
        caller = inspect.currentframe()
        for _ in range(2):
            caller = caller.f_back if caller is not None else None
        line, file = (caller.f_lineno, caller.f_code.co_filename) if caller is not None else (0, "")
        event = _Event(region, back, tuple(_digest(x) for x in tensors), line, Path(file).name, next(self.order))
        self.events.setdefault(current().rank, []).append(event)


def _digest(x: object) -> float | None:
    """A number that changes with the values and their places."""
    if not isinstance(x, Tensor) or x.numel() == 0:
        return None
    flat = x.detach().double().flatten()
    weights = (flat.new_ones(flat.numel()).cumsum(0) * 0.6180339887).frac() + 0.5
    return float((flat * weights).sum())


def locate(good: Path, bad: Path, edits: Sequence[Edit], run: Callable[[Path], None]) -> list[str]:
    """The first value that differs between what moec emits and what is in the folder, and the lines that changed."""
    lists = [_record(folder, run) for folder in (good, bad)]
    first = _first_difference(*lists)
    changed = [change_text(edit, change) for edit in edits for change in edit.changes[:8]]
    if first is None:
        return changed
    rank, event, argument = first
    way = "backward" if event.back else "forward"
    value = _argument_name(event, argument)
    place = f"{event.file}:{event.line}"
    found = (
        f"value `{value}` is wrong on rank {rank} where region `{event.region.__name__}` reads it, {way}, at {place}"
    )
    return [*changed, found] if _in_one_place(edits) else [found, *changed]


def _in_one_place(edits: Sequence[Edit]) -> bool:
    """Were only neighbouring lines of one file changed, so that nothing else can be the cause?"""
    lines = [line for edit in edits for line, _, _ in edit.changes]
    return len(edits) == 1 and max(lines) - min(lines) < len(lines)


def _record(folder: Path, run: Callable[[Path], None]) -> dict[int, list[_Event]]:
    own, run_module.Tape = run_module.Tape, _Recording
    _Recording.events, _Recording.order = {}, count()
    try:
        run(folder)
    finally:
        run_module.Tape = own
    return _Recording.events


def _first_difference(
    good: Mapping[int, list[_Event]], bad: Mapping[int, list[_Event]]
) -> tuple[int, _Event, int] | None:
    best: tuple[int, int, _Event, int] | None = None
    for rank, events in sorted(bad.items()):
        for mine, true in zip(events, good.get(rank, []), strict=False):
            if mine.key != true.key or len(mine.digests) != len(true.digests):
                break
            wrong = next(
                (n for n, pair in enumerate(zip(mine.digests, true.digests, strict=True)) if _differs(*pair)), None
            )
            if wrong is not None:
                if best is None or mine.order < best[0]:
                    best = (mine.order, rank, mine, wrong)
                break
    return None if best is None else best[1:]


def _differs(mine: float | None, true: float | None) -> bool:
    if mine is None or true is None:
        return mine is not true
    return abs(mine - true) > 1e-9 * max(1.0, abs(true))


def _argument_name(event: _Event, argument: int) -> str:
    """The region's parameter, or for a gradient what the region gives."""
    names = list(inspect.signature(event.region).parameters)
    if not event.back and argument < len(names):
        return names[argument]
    return f"gradient {argument + 1} of {event.region.__name__}"

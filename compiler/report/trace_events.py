"""The events of a trace: a process for each stage, with a thread that computes, one that talks, and its memory.

As in "Trace Event Format" (Google, 2016): `X` is an event with its duration, `C` a counter, `M` a name; times are in
microseconds.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.pass_time import PassTime
from moec.compiler.cost.simulate import Span
from moec.compiler.report.breakdown import piece_name
from moec.compiler.report.levels import with_levels
from moec.compiler.report.stage_rows import layers_text, ranks_text
from moec.compiler.report.turns import turns

Event: TypeAlias = Mapping[str, object]

_COMPUTE, _COMMUNICATION = 0, 1


def stage_events(found: Estimate, n: int, spans: Sequence[Span]) -> Iterator[Event]:
    """All that a stage does, passes whole, and its memory."""
    yield from _names(found, n)
    held = found.memory[n].held.total
    yield _memory(n, 0.0, held, 0, 0)
    for span, level in zip(spans, with_levels(spans, found.memory[n]), strict=True):
        thread = _COMMUNICATION if _talks(span) else _COMPUTE
        kind = span.name.partition(" ")[0]
        about = {"micro_batch": span.micro_batch} if level else {}
        name = f"{span.name} {span.micro_batch}" if level else span.name
        if span.end > span.start:
            yield _event(n, thread, name, kind, span.start, span.end, about)
        if level:
            yield _memory(n, span.start, held, level.kept, level.working)
            yield _memory(n, span.end, held, level.after, 0)


def inside_events(found: Estimate, n: int, spans: Sequence[Span], micro_batch: int) -> Iterator[Event]:
    """The regions and collectives of one micro-batch, within its passes."""
    stage = found.time.stages[n]
    for span in spans:
        if span.micro_batch == micro_batch and span.name == "forward":
            yield from _pieces(n, span, stage.forward)
        elif span.micro_batch == micro_batch and span.name == "backward":
            yield from _pieces(n, span, stage.backward)


def _pieces(n: int, span: Span, done: PassTime) -> Iterator[Event]:
    """A collective is on the thread that talks: emitted programs compute nothing meanwhile."""
    now, stretch = span.start, (span.end - span.start) / done.seconds
    for piece in turns(done):
        start, now = now, min(span.end, now + stretch * piece.seconds)
        if piece.talks:
            about = {"micro_batch": span.micro_batch, "bytes": piece.size, "group": piece.group}
            yield _event(n, _COMMUNICATION, piece_name(piece), "collective", start, now, about)
        else:
            yield _event(n, _COMPUTE, piece_name(piece), "region", start, now, {})


def _names(found: Estimate, n: int) -> Iterator[Event]:
    ranks, layers = ranks_text(found.program, found.time.stages[n].rank), layers_text(found.program.stages[n])
    process = {"process_name": {"name": f"stage {n}: {ranks}"}, "process_labels": {"labels": layers}}
    for name, said in (process | {"process_sort_index": {"sort_index": n}}).items():
        yield {"name": name, "ph": "M", "pid": n, "tid": 0, "args": said}
    for thread, said in ((_COMPUTE, "compute"), (_COMMUNICATION, "communication")):
        yield {"name": "thread_name", "ph": "M", "pid": n, "tid": thread, "args": {"name": said}}
        yield {"name": "thread_sort_index", "ph": "M", "pid": n, "tid": thread, "args": {"sort_index": thread}}


def _talks(span: Span) -> bool:
    return span.name in ("send", "norm") or span.name.startswith("reduce ")


def _event(n: int, thread: int, name: str, kind: str, start: float, end: float, about: Mapping[str, object]) -> Event:
    begins, ends = _nanoseconds(start), _nanoseconds(end)
    duration = (ends - begins) / 1000
    event = {"name": name, "cat": kind, "ph": "X", "ts": begins / 1000, "dur": duration, "pid": n, "tid": thread}
    return event | {"args": about} if about else event


def _memory(n: int, start: float, held: int, kept: int, working: int) -> Event:
    args = {"held": held, "activations": kept, "working": working}
    return {"name": "memory", "ph": "C", "ts": _nanoseconds(start) / 1000, "pid": n, "args": args}


def _nanoseconds(seconds: float) -> int:
    """Whole, so that what begins where another ends, or within it, does so exactly."""
    return round(seconds * 1e9)

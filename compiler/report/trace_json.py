"""Writes an estimate as a trace for Perfetto or chrome://tracing, within a bound of bytes."""

import json
from collections.abc import Iterable, Mapping, Sequence

from moec.compiler.cost.estimate import Estimate
from moec.compiler.report.spans import spans_of_stages
from moec.compiler.report.trace_events import inside_events, stage_events

MOST_BYTES = 20_000_000

_HEAD_BYTES = 4096
"""That what stands around the events may take."""


def trace_json(found: Estimate, most: int = MOST_BYTES) -> str:
    """The trace, of at most so many bytes.

    The passes of as many micro-batches are taken apart into regions and collectives as there is room for, the first
    ones first. Where even whole passes are too many, only every second stage is shown, or fewer. `otherData` says so.
    """
    spans, left = spans_of_stages(found), most - _HEAD_BYTES
    whole = {n: _texts(stage_events(found, n, spans[n])) for n in range(len(spans))}
    shown = _that_fit(whole, left)
    events = [text for n in shown for text in whole[n]]
    left -= _bytes(events)
    micro_batches = found.program.plan.schedule.accumulate
    apart = 0
    for apart in range(micro_batches + 1):
        inside = [text for n in shown for text in _texts(inside_events(found, n, spans[n], apart))]
        left -= _bytes(inside)
        if left < 0:
            break
        events += inside
    return _document(found.program.plan.name, len(shown), len(spans), min(apart, micro_batches), micro_batches, events)


def _that_fit(whole: Mapping[int, Sequence[str]], room: int) -> Sequence[int]:
    """All stages, or else every second, every fourth; at least the first."""
    step = 1
    while step < len(whole) and sum(_bytes(whole[n]) for n in range(0, len(whole), step)) > room:
        step *= 2
    return range(0, len(whole), step)


def _document(name: str, stages: int, of_stages: int, apart: int, of_apart: int, events: Sequence[str]) -> str:
    said = {
        "plan": name,
        "stages": f"{stages} of {of_stages}",
        "micro-batches taken apart": f"{apart} of {of_apart}",
        "predicted": "from the programs that the plan compiles to; nothing was measured",
    }
    listed = ",\n".join(events)
    return f'{{"displayTimeUnit":"ms","otherData":{json.dumps(said)},"traceEvents":[\n{listed}\n]}}\n'


def _texts(events: Iterable[Mapping[str, object]]) -> list[str]:
    encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
    return [encoder.encode(event) for event in events]


def _bytes(texts: Sequence[str]) -> int:
    """With a comma and a line end each; all of it is ASCII."""
    return sum(len(text) + 2 for text in texts)

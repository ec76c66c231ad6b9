"""The trace keeps to the format, has everything that the estimate has, and stays within its bound."""

import json
from collections import defaultdict

import pytest

from moec.compiler.cost import Estimate
from moec.compiler.report import trace_json


def test_events_have_what_the_format_asks_for(small: Estimate) -> None:
    trace = json.loads(trace_json(small))
    assert trace["displayTimeUnit"] == "ms" and trace["otherData"]["micro-batches taken apart"] == "4 of 4"
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str) and event["name"] and event["pid"] in (0, 1)
        match event["ph"]:
            case "X":
                assert event["ts"] >= 0 and event["dur"] >= 0 and event["tid"] in (0, 1) and event["cat"]
            case "C":
                assert event["ts"] >= 0 and all(value >= 0 for value in event["args"].values())
            case "M":
                assert event["args"]
            case other:
                raise AssertionError(f"no phase of ours: {other}")


def test_processes_are_stages_and_threads_have_names(small: Estimate) -> None:
    events = json.loads(trace_json(small))["traceEvents"]
    named = {(event["pid"], event["tid"], event["name"]): event["args"] for event in events if event["ph"] == "M"}
    assert named[0, 0, "process_name"] == {"name": "stage 0: ranks 0 to 1"}
    assert named[1, 0, "process_name"] == {"name": "stage 1: ranks 2 to 3"}
    assert [named[0, tid, "thread_name"]["name"] for tid in (0, 1)] == ["compute", "communication"]


def test_events_of_a_thread_nest(small: Estimate) -> None:
    threads = defaultdict(list)
    for event in json.loads(trace_json(small))["traceEvents"]:
        if event["ph"] == "X":
            start = round(event["ts"] * 1000)
            threads[event["pid"], event["tid"]].append((start, -round(event["dur"] * 1000)))
    assert len(threads) == 4
    for events in threads.values():
        around: list[int] = []
        for start, minus in sorted(events):
            while around and around[-1] <= start:
                around.pop()
            assert not around or start - minus <= around[-1], "it ends after what it is in"
            around.append(start - minus)


def test_regions_and_collectives_fill_their_passes(small: Estimate) -> None:
    events = json.loads(trace_json(small))["traceEvents"]
    for n, stage in enumerate(small.time.stages):
        sums = defaultdict(float)
        for event in events:
            if event["ph"] == "X" and event["pid"] == n:
                sums[event["cat"]] += event["dur"] / 1e6
        passes = 4 * (stage.forward.seconds + stage.backward.seconds)
        assert sums["forward"] + sums["backward"] == pytest.approx(passes, rel=1e-4)
        assert sums["region"] + sums["collective"] == pytest.approx(passes, rel=1e-3)
        assert sums["collective"] == pytest.approx(stage.talking, rel=1e-3)


def test_memory_reaches_the_peak(small: Estimate) -> None:
    events = json.loads(trace_json(small))["traceEvents"]
    for n, memory in enumerate(small.memory):
        sums = [sum(event["args"].values()) for event in events if event["ph"] == "C" and event["pid"] == n]
        assert max(sums) == memory.total and sums[0] == sums[-1] == memory.held.total


def test_what_does_not_fit_is_left_out_and_said(small: Estimate) -> None:
    whole = len(trace_json(small))
    said = [_said(trace_json(small, most), most) for most in range(9_000, whole + 8_000, 4_000)]
    assert said == sorted(said) and (said[0], said[-1]) == ((1, 0), (2, 4))
    assert {apart for _, apart in said} == {0, 1, 2, 3, 4}


def test_a_large_trace_is_bounded(large: Estimate) -> None:
    stages, apart = _said(trace_json(large, 2_000_000), 2_000_000)
    assert 1 < stages < 64 and apart < 256


def _said(text: str, most: int) -> tuple[int, int]:
    """How many stages are shown and micro-batches taken apart, as is said and as is there."""
    assert len(text) <= most
    trace = json.loads(text)
    stages = {event["pid"] for event in trace["traceEvents"]}
    apart = {event["args"]["micro_batch"] for event in trace["traceEvents"] if event.get("cat") == "collective"}
    said = tuple(int(trace["otherData"][name].split()[0]) for name in ("stages", "micro-batches taken apart"))
    assert said == (len(stages), len(apart)) and apart == set(range(len(apart)))
    return len(stages), len(apart)

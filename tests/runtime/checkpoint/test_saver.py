"""Savers of two ranks in one process: what hangs, breaks or meets another run is named, and no one waits for ever."""

import json
import os
import threading

import pytest
from plain import trained
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

from moec.checkpoint.folders import latest, steps_below
from moec.checkpoint.verify import faults_of
from moec.runtime.attempt import past_of
from moec.runtime.checkpoint.notes import NotSaved
from moec.runtime.checkpoint.saver import Saver, Saving


@pytest.fixture
def savers(tiny, tmp_path):
    """Makes the savers of the two ranks of a job that has done a step."""
    runs, _ = trained(tiny(1, 1), 1)

    def make(resumed=False, keep=None, host="here", timeout=60.0):
        store = HashStore()
        saving = Saving(tmp_path / "ck", 1, keep, past_of(store).run, 7, "data", {}, {}, resumed, timeout)
        for run in runs:
            run.asked_to_stop = False
        return [Saver(saving, run, store, host) for run in runs]

    return make


def step_to(savers, step):
    """Begin to save a step on all ranks."""
    for saver in savers:
        saver._run.step = step
        saver.after_step()


def finished(savers):
    """What each rank has to say at the end."""
    said = []
    for saver in savers:
        try:
            saver.finish()
            said.append("")
        except NotSaved as fault:
            said.append(str(fault))
    return said


def test_a_run_saves(savers, tmp_path):
    both = savers(keep=2)
    assert both[0].summary == []
    for step in (2, 3, 4):
        step_to(both, step)
    assert finished(both) == ["", ""] and both[0].summary == [f"checkpoints: {tmp_path / 'ck'}"]
    assert [path.name for path in steps_below(tmp_path / "ck")] == ["step_00000003", "step_00000004"]
    manifest = json.loads((latest(tmp_path / "ck") / "manifest.json").read_text())
    assert manifest["run"] == json.loads((tmp_path / "ck" / "saved_by.json").read_text())["run"] != ""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_is_named(savers, tmp_path, capsys, rank):
    both = savers(timeout=0.5)
    step_to(both, 2)
    assert finished(both) == ["", ""]
    gone_on, write = threading.Event(), both[rank]._snapshot.write

    def hanging(*arguments):
        gone_on.wait()
        return write(*arguments)

    both[rank]._snapshot.write = hanging
    step_to(both, 3)
    hung = both[rank]._thread
    said = finished([both[rank], both[1 - rank]])
    assert said[0] == said[1]
    assert said[0].startswith(f"step 3 was not saved: rank {rank} on here has not got on with it for ")
    step_to(both, 4)
    assert finished(both) == [f"step 4 was not saved: rank {rank} on here still hangs in the save of step 3"] * 2
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert [line.split(": ")[1][:22] for line in warned] == ["step 3 was not saved", "step 4 was not saved"]
    assert latest(tmp_path / "ck").name == "step_00000002" and list(faults_of(latest(tmp_path / "ck"))) == []
    gone_on.set()
    hung.join()
    step_to(both, 5)
    assert finished(both) == ["", ""], "the disk answers again"
    assert latest(tmp_path / "ck").name == "step_00000005" and list(faults_of(latest(tmp_path / "ck"))) == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (ValueError("no\nsuch thing"), "ValueError: no such thing"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_any_exception_of_a_thread_reaches_all(savers, tmp_path, capsys, rank, fault, said):
    both = savers()

    def broken(*_):
        raise fault

    both[rank]._snapshot.write = broken
    step_to(both, 2)
    assert finished(both) == [f"step 2 was not saved: rank {rank} on here: {said}"] * 2
    assert capsys.readouterr().err == f"warning: step 2 was not saved: rank {rank} on here: {said}\n"
    assert latest(tmp_path / "ck") is None


def test_a_run_gives_way_to_one_that_came_later(savers, tmp_path, capsys):
    first = savers(host="old", keep=1)
    step_to(first, 2)
    assert finished(first) == ["", ""]
    second = savers(host="new", resumed=True, keep=1)
    step_to(first, 3)
    lost = finished(first)
    assert lost[0] == lost[1] and first[0]._run.asked_to_stop
    assert lost[0].startswith(f"step 3 was not saved: another run saves to {tmp_path / 'ck'} now, from new since ")
    assert capsys.readouterr().err == "", "it is said when the run ends"
    assert latest(tmp_path / "ck").name == "step_00000002"
    step_to(second, 3)
    assert finished(second) == ["", ""], "what it goes on from is its own to remove"
    assert [path.name for path in steps_below(tmp_path / "ck")] == ["step_00000003"]


def test_a_run_removes_nothing_of_another(savers, tmp_path):
    first = savers(keep=1)
    second = savers(keep=1)  # which has found nothing there
    first[0]._owner.claim(tmp_path / "ck")
    step_to(first, 2)
    assert finished(first) == ["", ""]
    second[0]._owner.claim(tmp_path / "ck")
    step_to(second, 3)
    assert finished(second) == ["", ""]
    assert [path.name for path in steps_below(tmp_path / "ck")] == ["step_00000002", "step_00000003"]


def test_each_call_that_comes_back_is_seen(savers, tmp_path, monkeypatch):
    """Also where the disk takes its time for each, and no byte is written."""
    both = savers()
    moves, fsync = [], os.fsync

    def slow(descriptor):
        moves.append(both[0]._notes.moves)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    step_to(both[:1], 2)
    first = both[0]._thread
    step_to(both[1:], 2)
    assert finished(both) == ["", ""] and not first.is_alive()
    last = moves[-4:]  # the manifest, its folder twice, and the folder of the run
    assert len(set(last)) == 4 and first.notes.moves > last[-1]

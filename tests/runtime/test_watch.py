"""Who is found to keep a job from going on, from what ranks say of themselves; and how it is said."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from moec.runtime.checkpoint.notes import Notes
from moec.runtime.data.micro_batches import Pace as DataPace
from moec.runtime.ending import remedy
from moec.runtime.watch import board
from moec.runtime.watch.helper import Helper, helper_of
from moec.runtime.watch.inquiry import Inquiry
from moec.runtime.watch.judge import Finding, judge
from moec.runtime.watch.listener import Listener
from moec.runtime.watch.neighbourhood import Neighbourhood
from moec.runtime.watch.own import Own
from moec.runtime.watch.plan_lines import PlanLines
from moec.runtime.watch.pulse import Card, Pulse, machine
from moec.runtime.watch.sight import Sight, look
from moec.runtime.watch.slow import Pace
from moec.runtime.watch.verdict import NOTE, Verdict, post, posted, read_note, tell

WAITS = Pulse(
    number=7,
    step=17,
    phase="forward",
    at='stage_1.py:141 y = all_reduce(y, "tp")',
    waits=True,
    calls=90,
    still=60.0,
    idle=60.0,
    helper="",
    for_others=False,
    now=100.0,
    waited=50.0,
    mostly="forward",
)
MOVES = replace(WAITS, waits=False, still=0.1, idle=0.1)
READS = replace(WAITS, waits=False, phase="data", helper="mine.py:3 x = load(path)", at="stage_0.py:9 run.inputs(i)")


def later(pulse, **changes):
    return replace(pulse, number=pulse.number + 6, **changes)


def judged(pulses, dead=(), timeout=60.0):
    """What two looks at these find, between which all but the dead have had pulses."""
    after = {rank: pulse if rank in dead else later(pulse) for rank, pulse in pulses.items()}
    return judge(len(pulses), pulses, after, timeout)


def test_a_rank_whose_process_does_not_run_is_the_culprit_also_where_it_waits():
    finding = judged(dict.fromkeys(range(4), WAITS), dead=(2,))
    assert (finding.rank, finding.stopped) == (2, True) and "has stopped" in finding.what
    assert judge(3, {0: WAITS, 1: WAITS}, {0: later(WAITS), 1: later(WAITS)}, 60.0).rank == 2


def test_a_rank_that_calls_no_one_while_others_wait_is_the_culprit():
    loops = replace(WAITS, waits=False, still=75.0)
    finding = judged({0: WAITS, 1: loops, 2: WAITS})
    assert (finding.rank, finding.stopped) == (1, False) and "for 75 s while others wait" in finding.what


def test_ranks_that_still_move_are_no_culprits():
    assert judged({0: WAITS, 1: MOVES, 2: replace(WAITS, still=1.0)}) is None
    assert judged({0: WAITS, 1: replace(WAITS, still=1.0)}) is None


def test_where_no_one_waits_and_nothing_moves_one_is_the_culprit():
    what = "has made no progress for 60 s, nor has any other rank (it is reading data, in mine.py:3 x = load(path))"
    assert judged({0: READS, 1: replace(READS, idle=59.0)}) == Finding(0, what)
    syncs = replace(WAITS, waits=False, phase="update", at="rank_000.py:9 run.update()")
    assert judged({0: syncs, 1: syncs, 2: READS, 3: syncs}) == Finding(2, what), "the others are in one place"
    assert judged({0: syncs}) == Finding(0, "has made no progress for 60 s")


def test_who_saves_and_waits_for_anothers_part_is_no_culprit():
    saves = replace(WAITS, waits=False, phase="saving", helper="parts.py:7 file.write(x)", at="")
    waits = replace(saves, helper="notes.py:9 time.sleep(pause)", for_others=True, idle=70.0)
    finding = judged({0: waits, 1: waits, 2: saves, 3: waits})
    assert finding.rank == 2 and finding.what.endswith(" (it is saving, in parts.py:7 file.write(x))")


def test_as_long_as_anything_moves_no_one_is_the_culprit():
    """Slow data, a long evaluation, a large checkpoint: whoever calls no one for long may still get on."""
    slow = replace(READS, idle=1.0, still=900.0)
    assert judged({0: slow, 1: slow}) is None
    assert judged({0: READS, 1: slow}) is None
    assert judged({0: slow}) is None


def test_who_keeps_others_waiting_is_told_with_what_it_does():
    assert judged({0: WAITS, 1: READS}).what == (
        "has called no one for 60 s while others wait for it (it is reading data, in mine.py:3 x = load(path))"
    )


def test_where_all_wait_the_place_where_fewest_do_is_named():
    other = replace(WAITS, at="rank_001.py:38 x = run.receive(stage.ACTIVATIONS_IN, PREVIOUS)")
    finding = judged({0: WAITS, 1: other, 2: WAITS})
    assert finding.rank == 1
    assert finding.what == (
        'waits, as do ranks 0, 2 in stage_1.py:141 y = all_reduce(y, "tp"): what they call does not meet'
    )
    assert "cannot reach each other" in judged(dict.fromkeys(range(3), replace(WAITS, at="", step=0))).what


def test_a_slow_rank_is_named_once_and_only_after_some_time():
    pace = Pace()

    def look_at(n, slow):
        """Ten steps further: 50 ms of own work in each, of the slow one 150 ms."""
        return pace.look(
            {
                rank: replace(WAITS, step=10 * n, now=2.0 * n, waited=n * (0.5 if rank == slow else 1.5))
                for rank in range(4)
            }
        )

    assert [look_at(n, 2) for n in range(3)] == [None] * 3
    found = look_at(3, 2)
    assert found.rank == 2 and found.factor == pytest.approx(3.0) and found.seconds == pytest.approx(0.15)
    assert look_at(4, 2) is None
    assert [look_at(n, n % 4) for n in range(5, 15)] == [None] * 10, "noise is never the same rank three times"


def test_a_slow_rank_needs_steps_to_be_seen_in():
    pace = Pace()
    fast, slow = replace(WAITS, waited=0.0), replace(WAITS, waited=0.0)
    for n in range(9):  # one step in all these looks
        now = 100.0 + n
        assert pace.look({0: replace(fast, now=now, waited=n), 1: replace(slow, now=now, step=17 + n // 8)}) is None


def test_lines_of_the_plan():
    lines = PlanLines("a.plan", {"tp": [12], "ep": [10, 11]}, [9], [2])
    assert lines.of('stage_1.py:141 y = all_reduce(y, "tp")') == " [a.plan:12]"
    assert lines.of('stage_1.py:144 run.reduce("ep")') == " [a.plan:10, 11]"
    assert lines.of("rank_001.py:38 x = run.receive(stage.ACTIVATIONS_IN, PREVIOUS)") == " [a.plan:9]"
    assert lines.of("stage_1.py:91 return F.linear(h, w)") == " [a.plan:2]"
    assert lines.of("rank_001.py:43 run.update()") == ""
    assert lines.of("") == PlanLines().of("stage_1.py:91 x") == ""


def test_what_another_thread_does_is_seen(tmp_path):
    """In a line of the job's files, in whatever that calls."""
    (tmp_path / "stage_0.py").write_text("def layer_backward(wait):\n    wait()  # till the end\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import stage_0
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("stage_0", None)
    end = threading.Event()
    thread = threading.Thread(target=stage_0.layer_backward, args=(end.wait,))
    thread.start()
    deadline = time.monotonic() + 10
    while not (sight := look(tmp_path, thread.ident)).at and time.monotonic() < deadline:
        time.sleep(0.01)
    end.set()
    thread.join()
    assert (sight.at, sight.phase, sight.waits) == ("stage_0.py:2 wait()", "backward", False)


def test_the_first_verdict_counts_and_is_told_once_on_each_machine(tmp_path, monkeypatch, capfd):
    store = dist.HashStore()
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.setenv(NOTE, str(tmp_path / "note.json"))
    assert posted(store) is None
    first, second = Verdict("rank 3 did it", by=1, machine="0"), Verdict("rank 1 did it", by=0, machine="0")
    assert post(store, first) == post(store, second) == posted(store) == first
    for machine_number, rank in (("0", 1), ("0", 0), ("1", 8), ("1", 9)):
        monkeypatch.setenv("GROUP_RANK", machine_number)
        tell(store, first, rank)
    assert capfd.readouterr().err == "rank 3 did it\n" * 2
    assert '"py_callstack": "rank 3 did it"' in (tmp_path / "error.json").read_text()
    assert read_note(tmp_path / "note.json") == first
    assert {path.name for path in tmp_path.iterdir()} == {"error.json", "note.json"}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Rank 1 of 3, all on this machine, with a store of its own."""
    (tmp_path / "plan.json").write_text('{"lines": {"file": "a.plan", "groups": {"tp": [12]}}}')
    for name, value in (("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "3")):
        monkeypatch.setenv(name, value)
    store = dist.HashStore()
    board.post_card(store, 0, Card("there", os.getppid(), "elsewhere", "stage 0 (embed)"))
    return Own(store, 1, 3, tmp_path, timeout=12.0, main=threading.get_ident())


def test_a_rank_that_falls_silent_is_warned_of_and_then_accused(own, capfd):
    listener = Listener(own)
    for _ in range(3):
        assert listener.listen() is None, "it has not said anything yet"
    for n in range(60):
        board.post_pulse(own.store, 0, replace(WAITS, number=n))
        assert listener.listen() is None
    found = [listener.listen() for _ in range(24)]
    assert found[:23] == [None] * 23 and found[23].rank == 0 and found[23].stopped
    assert capfd.readouterr().err == (
        "warning: rank 0 on there has not been heard of for 10 s: step 17, stage 0 (embed), "
        'last seen in stage_1.py:141 y = all_reduce(y, "tp") [a.plan:12]\n'
    )
    board.post_left(own.store, 0)
    assert listener.listen() is None, "it has left, as it said"


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import os; os._exit(0)", "ended early, with status 0"),
        ("import os; os.kill(os.getpid(), 9)", "was killed (SIGKILL)"),
        ("import ctypes; ctypes.string_at(0)", "crashed (segmentation fault, SIGSEGV)"),
        ("import os; os.kill(os.getpid(), 40)", "was ended by signal 40"),
        ("import os; os.kill(os.getpid(), 15)", "was ended by SIGTERM"),
    ],
)
def test_a_process_that_ends_is_seen_with_its_cause(own, code, what):
    child = subprocess.Popen([sys.executable, "-c", f"input(); {code}"], stdin=subprocess.PIPE)
    board.post_card(own.store, 2, Card("here", child.pid, machine(), "stage 1 (head)"))
    neighbourhood = Neighbourhood(own)
    assert neighbourhood.meet() is None and len(neighbourhood.descriptors) == 1
    (descriptor,) = neighbourhood.descriptors
    child.stdin.write(b"\n")
    child.stdin.flush()
    poll = select.poll()
    poll.register(descriptor)
    assert poll.poll(30_000)
    (finding,) = neighbourhood.ended({descriptor})
    assert (finding.rank, finding.what) == (2, what)
    child.stdin.close()
    child.wait()
    assert not neighbourhood.descriptors


def test_one_that_has_left_is_not_accused(own):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    board.post_card(own.store, 2, Card("here", child.pid, machine(), ""))
    neighbourhood = Neighbourhood(own)
    neighbourhood.meet()
    board.post_left(own.store, 2)
    child.communicate(b"\n")
    assert list(neighbourhood.ended(set(neighbourhood.descriptors))) == []
    board.post_card(own.store, 2, Card("here", child.pid, machine(), ""))
    assert Neighbourhood(own).meet() is None


def test_an_inquiry_is_one_ranks_and_takes_two_looks(own, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    waits = replace(WAITS, still=13.0)
    inquiries = [Inquiry(own) for _ in range(3)]

    def go_on():
        for rank in (0, 2):
            board.post_pulse(own.store, rank, replace(waits, number=int(10 * clock.now)))
        board.post_pulse(own.store, 1, waits)  # always the same
        return [inquiry.go_on(waits) for inquiry in inquiries]

    assert go_on() == [None] * 3
    clock.now = 2.0
    assert go_on() == [None] * 3, "too early for a second look"
    clock.now = 4.0
    first, *others = go_on()
    assert others == [None, None] and first.rank == 1 and first.stopped


def test_an_inquiry_is_due_where_no_one_waits_and_nothing_moves(own, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)

    def found(idle, step=17, still=100.0):
        """By an inquiry of rank 1, while all are alike."""
        inquiry, finding = Inquiry(own), None
        for number in (1, 2):
            pulse = replace(READS, number=number, idle=idle, still=still, step=step)
            for rank in range(3):
                board.post_pulse(own.store, rank, pulse)
            finding = inquiry.go_on(pulse)
            clock.now += 4.0
        return finding

    assert found(13.0) is None, "before the first step much may be read"
    own.run = SimpleNamespace(step=16, asked_to_stop=False)
    assert found(1.0) is None, "they call no one for long, and move"
    assert "has made no progress for 13 s" in found(13.0).what
    assert found(13.0) is None, "another rank has looked"
    assert found(13.0, step=18).rank == 0, "in another step it is another matter"


def test_an_error_that_another_rank_makes_is_looked_into(own, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    own.missing = "misses another rank"
    inquiry = Inquiry(own)
    for rank in range(3):
        board.post_pulse(own.store, rank, MOVES)
    assert inquiry.go_on(MOVES) is None
    clock.now = 4.0
    for rank in range(3):
        board.post_pulse(own.store, rank, later(MOVES))
    assert inquiry.go_on(MOVES).what == "misses another rank", "no one else has gone"


def test_said_of_a_rank_that_was_never_heard_of(own):
    assert own.said(2, "is gone") == "rank 2 is gone: before the first step"
    own.run = SimpleNamespace(step=4, asked_to_stop=False)
    own.remedy = lambda: "do that"
    assert own.verdict(own.said(0, "is gone")).line == "rank 0 on there is gone: step 5, stage 0 (embed): do that"


def test_only_torchrun_is_missed_when_it_is_gone(own, monkeypatch):
    """A process that was started by hand may outlive the shell that it was started from."""
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    by_hand = Neighbourhood(own)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "some")
    by_torchrun = Neighbourhood(own)
    assert not by_hand.orphaned and not by_torchrun.orphaned
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not by_hand.orphaned and by_torchrun.orphaned


def test_signals_reach_a_thread_while_the_main_thread_is_held_up(tmp_path):
    """In C, in which a handler of Python's does not run; and one that is ignored stays so."""
    script = """
import ctypes, os, select, signal, threading
from moec.runtime.watch.signals import Mailbox

signal.signal(signal.SIGHUP, signal.SIG_IGN)
mailbox = Mailbox()

def look():
    select.select([mailbox.descriptor], [], [], 30)
    print(sorted(mailbox.arrived()), sorted(mailbox.arrived()), flush=True)
    os._exit(0)

threading.Thread(target=look).start()
os.kill(os.getpid(), signal.SIGHUP)
ctypes.CDLL(None).usleep(200_000)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
end = ctypes.CDLL(None).sleep
while True:
    end(30)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == f"[{int(signal.SIGTERM)}] []\n", done.stderr


class Job:
    """A run, as a watch sees it, and what it calls."""

    def __init__(self):
        self.step, self.asked_to_stop, self.calls, self.waited = 0, False, 0, 0.0
        self.micro_batches = SimpleNamespace(pace=DataPace())


def test_what_counts_as_progress(own, monkeypatch):
    """Each of these, and time does not."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    own.run = own.talking = job = Job()
    places = iter(range(1000))
    monkeypatch.setattr("moec.runtime.watch.own.look", lambda folder, main: sight)
    monkeypatch.setattr("moec.runtime.watch.own.helper_of", lambda phase, main: helper)
    sight, helper = Sight("", "data", False), Helper("a.py:1 x", False, 5)

    def idle():
        clock.now += 10.0
        pulse = own.pulse()
        return pulse.idle

    assert idle() == 0.0 and idle() == 10.0 and idle() == 20.0
    for field in ("step", "calls"):
        vars(job)[field] += 1
        assert idle() == 0.0 and idle() == 10.0, field
    job.micro_batches.pace.samples += 1
    assert idle() == 0.0 and own.pulse().still == 20.0, "a sample is no call"
    for more in (Sight("", "forward", False), Sight(f"stage_0.py:{next(places)}", "forward", False)):
        sight = more
        assert idle() == 0.0 and idle() == 10.0
    helper = Helper("a.py:1 x", False, 6)
    assert idle() == 0.0
    helper = Helper("a.py:2 y", False, 6)
    assert idle() == 10.0, "a loop has lines, too"


def test_what_the_thread_does_that_is_waited_for(tmp_path):
    """It is told by the user's line, not by that of a library; and by what it has read and written."""
    path = tmp_path / "pictures.py"
    path.write_text("def load(read, end):\n    read()\n    end.wait()  # the user's\n")
    names = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    end, going = threading.Event(), threading.Event()

    def read():
        with open(path, "rb", buffering=0) as file:
            file.read()
        going.set()

    def work():
        names["load"](read, end)

    main = threading.get_ident()
    assert helper_of("forward", main) == Helper()
    assert not helper_of("data", main).for_others, "there is no such thread: the main thread reads itself"
    thread = threading.Thread(target=work, name="moec-data")
    thread.start()
    assert going.wait(30)
    helper = helper_of("data", main)
    end.set()
    thread.join()
    assert helper.at == "pictures.py:3 end.wait()" and not helper.for_others
    assert helper.moved >= len(path.read_text()) or not os.path.exists("/proc/self/task")


def test_a_thread_of_a_save_that_waits_for_others_is_known():
    store = dist.HashStore()
    notes = Notes(store, 3, 1, "here", timeout=60.0)

    def work():
        notes.wait("folder", 0)

    thread = threading.Thread(target=work, name="moec-save")
    thread.start()
    deadline = time.monotonic() + 30
    while not (helper := helper_of("saving", threading.get_ident())).for_others and time.monotonic() < deadline:
        time.sleep(0.01)
    notes.leave("folder", "step_00000003")
    thread.join()
    assert helper.for_others and helper.at.startswith("notes.py:")


def test_a_watch_that_fails_ends_the_job_with_a_line(tmp_path):
    """Whatever it is that fails, also where nothing can be said any more."""
    (tmp_path / "plan.json").write_text("{}")
    script = """
import sys, threading
import torch.distributed as dist
from pathlib import Path
from moec.runtime.ending import remedy
from moec.runtime.watch import Watch, listener

def fail(self):
    raise ValueError("no such thing\\nat all")

def silent(*args, **more):
    raise BrokenPipeError

listener.Listener.listen = fail
watch = Watch(dist.HashStore(), 0, 1, Path(sys.argv[1]), 60.0)
if sys.argv[2] == "silent":
    sys.stderr.write = silent
watch.start(lambda: remedy(sys.argv[3]))
threading.Event().wait(60)
"""
    (tmp_path / "saved").write_text("a file")

    def ended(*arguments):
        command = [sys.executable, "-c", script, str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    done = ended("speaks", str(tmp_path / "saved"))
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("rank 0 on ")
    assert " cannot watch over the others any more (ValueError: no such thing at all): before the first step: " in line
    assert line.endswith(f"and {tmp_path / 'saved'} is no folder of checkpoints any more")
    assert ended("silent", str(tmp_path / "none")).returncode == 1


def test_what_to_do_is_said_whatever_has_become_of_the_folder(tmp_path):
    assert remedy(None) == "with --save DIR --every N there are checkpoints to go on from"
    assert remedy(str(tmp_path / "none")) == "no step was saved yet"
    (tmp_path / "file").write_text("")
    assert remedy(str(tmp_path / "file")) == f"and {tmp_path / 'file'} is no folder of checkpoints any more"
    for path in ("no\0name", "x" * 5000):
        assert remedy(path).startswith("and no checkpoint is found any more: "), path

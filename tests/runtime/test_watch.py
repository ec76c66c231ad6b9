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

from moec.runtime.watch import board
from moec.runtime.watch.inquiry import Inquiry
from moec.runtime.watch.judge import judge
from moec.runtime.watch.listener import Listener
from moec.runtime.watch.neighbourhood import Neighbourhood
from moec.runtime.watch.own import Own
from moec.runtime.watch.plan_lines import PlanLines
from moec.runtime.watch.pulse import Card, Pulse, machine
from moec.runtime.watch.sight import look
from moec.runtime.watch.slow import Pace
from moec.runtime.watch.verdict import NOTE, Verdict, post, posted, read_note, tell

WAITS = Pulse(7, 17, "forward", 'stage_1.py:141 y = all_reduce(y, "tp")', True, 90, 60.0, 100.0, 50.0, "forward")
MOVES = replace(WAITS, waits=False, still=0.1)


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

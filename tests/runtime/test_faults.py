"""Real processes that fail: the last line says who, where and what to do, all are gone, and nothing stays behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DATA = HERE / "conftest.py"


class Ended:
    """What a job came to."""

    def __init__(self, folder, status, output, errors):
        self.status, self.output, self.errors = status, output, errors
        self.left = processes(folder)

    @property
    def last(self):
        """The last line of moec's own: what follows is torchrun's report."""
        lines = [line for line in self.errors.splitlines() if re.match(r"rank \d+ on |ended by ", line)]
        return lines[-1] if lines else ""


def run(folder, *arguments, while_it_runs=None, options=()):
    """The job of two processes in a folder, to its end."""
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [*options, "--", str(folder / "main.py"), "--data", str(DATA), *arguments]
    path = os.pathsep.join([str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": path}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=variables, **pipes) as job:
        if while_it_runs:
            while_it_runs(job)
        output, errors = job.communicate(timeout=180)
    return Ended(folder, job.returncode, output, errors)


def processes(folder):
    """Of its ranks, those that are still there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command, status = (entry / "cmdline").read_text(), (entry / "status").read_text()
            except OSError:
                continue
            if str(folder) in command and "State:\tZ" not in status:
                found.append(command.replace("\0", " "))
    return found


def fail(made, rank, code):
    """Let a rank run this code as its third step begins. It must not read as another schedule than that of others."""
    path = made.folder / f"rank_{rank:03d}.py"
    text = path.read_text()
    body = "    run.count_valid("
    assert text.count(body) == 1
    path.write_text(text.replace(body, f"    if vars(run)['step'] == 2:\n        {code}\n{body}"))


def says_where(ended, rank, what, stage):
    assert re.match(rf"rank {rank} on \S+ {what}", ended.last), ended.errors[-4000:]
    assert f"step 3, {stage}" in ended.last and ended.status == 1 and ended.left == []
    assert ended.errors.count(ended.last) >= 1


def test_a_rank_that_is_killed(tiny):
    made = tiny(1, 1)
    fail(made, 1, "import os; os.kill(os.getpid(), 9)")
    ended = run(made.folder, "--timeout", "60")
    says_where(ended, 1, r"was killed \(SIGKILL\)", "stage 1 (layers.1 to head)")
    assert ended.last.endswith(": with --save DIR --every N there are checkpoints to go on from")
    assert ended.errors.count("Traceback") == 1, "torchrun's"
    assert "rank      : 1 (local_rank: 1)" in ended.errors.partition("Root Cause")[2]


def test_an_exception_is_shown_once_with_the_line_it_came_from(tiny):
    made = tiny(1, 1)
    fail(made, 1, "raise KeyError('boom')")
    ended = run(made.folder, "--timeout", "60")
    says_where(ended, 1, "raised KeyError: 'boom'", "stage 1 (layers.1 to head)")
    assert re.search(r"in rank_001\.py:\d+ raise KeyError\('boom'\)", ended.last)
    before = ended.errors.partition("torch/distributed/elastic")[0]
    assert before.count("rank 1:\nTraceback") == before.count("Traceback") == 1 and "\nin step 3\n" in before
    report = ended.errors.rpartition("Root Cause")[2]
    assert "rank      : 1 (local_rank: 1)" in report and ended.last in report


def test_a_value_that_is_not_finite_is_traced_to_its_region(tiny):
    made = tiny(1, 1)
    layer = made.folder / "layer.py"
    region = "    return F.linear(F.gelu(F.linear(h, up)), down, bias)"
    text = layer.read_text()
    assert region in text
    spoil = "    import spoil\n    spoil.spoil(h)\n"
    layer.write_text(text.replace(region, spoil + region))
    (made.folder / "spoil.py").write_text(_SPOIL)
    ended = run(made.folder, "--timeout", "60", "--save", str(made.folder / "saved"), "--every", "1")
    what = "has the first value that is not finite: the result of the forward of region `feed_forward` of layers.1"
    says_where(ended, 1, what, "stage 1 (layers.1 to head)")
    assert re.search(
        r"micro-batch 1: .*, in layer\.py:\d+ a = tape\.run\(feed_forward, h, bias, w\.up, w\.down\)", ended.last
    )
    saved = made.folder / "saved"
    assert ended.last.endswith(f" is the last checkpoint, --resume {saved} goes on from it")
    assert {path.parent.name for path in saved.glob("*/*.json")} <= {"step_00000001", "step_00000002"}


_SPOIL = """
import os, sys

def spoil(h):
    frame = sys._getframe()
    while "run" not in frame.f_locals or "i" not in frame.f_locals:
        frame = frame.f_back
    if os.environ["RANK"] == "1" and frame.f_locals["run"].step == 2 and frame.f_locals["i"] == 1:
        h.detach().view(-1)[0] *= float("inf")
"""


def test_sigterm_saves_the_step_and_ends_with_its_own_status(tiny):
    """Also where one process alone is sent it."""
    made = tiny(1, 1)
    saved = made.folder / "saved"
    fail(made, 1, "import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    ended = run(made.folder, "--timeout", "60", "--save", str(saved))
    steps = [path for path in saved.iterdir() if path.is_dir()]
    assert len(steps) == 1
    what_next = f"{steps[0]} is the last checkpoint, --resume {saved} goes on from it"
    step = int(steps[0].name.removeprefix("step_"))
    assert ended.last == f"ended by SIGTERM after step {step}: {what_next}" and step >= 3, ended.errors[-4000:]
    report = ended.errors.rpartition("Root Cause")[2]
    assert "exitcode  : 75 " in report and ended.status == 1 and ended.left == []


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import ctypes; ctypes.string_at(0)", r"crashed \(segmentation fault, SIGSEGV\)"),
        ("import os; os._exit(0)", "ended early, with status 0"),
        ("raise SystemExit(0)", r"ended early, by sys\.exit\(0\)"),
        ("raise MemoryError", r"ran out of memory \(MemoryError\)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "has stopped: its process does not run"),
        ("while True: pass", r"has called no one for \d+ s while others wait for it"),
    ],
)
def test_other_ends(tiny, code, what):
    made = tiny(1, 1)
    fail(made, 1, code)
    says_where(run(made.folder, "--timeout", "8"), 1, what, "stage 1 (layers.1 to head)")


@pytest.mark.sweep
def test_what_ranks_call_does_not_meet(tiny):
    """All wait, each for others: the one that waits elsewhere is named."""
    made = tiny(1, 1)
    fail(made, 1, "mine = run; mine.receive(vars(stage)['ACTIVATIONS_IN'], PREVIOUS)")
    ended = run(made.folder, "--timeout", "8")
    assert ended.status == 1 and "what they call does not meet" in ended.last and ended.left == []


@pytest.mark.sweep
def test_all_hang_and_no_one_waits_in_a_call(tiny):
    made = tiny(1, 1)
    for rank in (0, 1):
        fail(made, rank, "import time; time.sleep(1000)")
    ended = run(made.folder, "--timeout", "8")
    assert re.match(r"rank \d on \S+ has made no progress for \d+ s, nor has any other rank: step 3, ", ended.last)
    assert ended.status == 1 and ended.left == []


@pytest.mark.sweep
def test_a_signal_without_a_name(tiny):
    made = tiny(1, 1)
    fail(made, 1, "import os; os.kill(os.getpid(), 40)")
    says_where(run(made.folder, "--timeout", "60"), 1, "was ended by signal 40", "stage 1 (layers.1 to head)")


@pytest.mark.sweep
def test_torchrun_is_killed(tiny):
    """No one is left to end its processes, but they themselves."""
    made = tiny(1, 1)

    def kill(job):
        assert job.stdout.readline()
        job.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 10
        while processes(made.folder) and time.monotonic() < deadline:
            time.sleep(0.2)

    ended = run(made.folder, "--steps", "100000", while_it_runs=kill)
    assert ended.left == []
    assert "has lost torchrun" in ended.errors or "cannot reach the job's store" in ended.errors


def test_a_restarted_job_goes_on_from_its_last_checkpoint(tiny):
    made = tiny(1, 1)
    saved, log = made.folder / "saved", made.folder / "metrics.jsonl"
    fail(made, 1, "import os; os.environ['TORCHELASTIC_RESTART_COUNT'] == '0' and os.kill(os.getpid(), 9)")
    ended = run(
        made.folder,
        "--save",
        str(saved),
        "--every",
        "1",
        "--steps",
        "5",
        "--log",
        str(log),
        options=("--max-restarts", "1"),
    )
    assert ended.status == 0, ended.errors[-3000:]
    assert ended.last.startswith("rank 1 on ")  # was killed, or is gone where torchrun was first to ask
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps[-3:] == [3, 4, 5] and sorted(set(steps)) == [1, 2, 3, 4, 5]

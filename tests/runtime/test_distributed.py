"""Real processes over gloo give what the ranks in one process give, and say what keeps them from starting."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from moec.runtime.handshake import Refusal, shake_hands
from moec.runtime.simulated import simulate

HERE = Path(__file__).parent


def torchrun(processes, script, *arguments):
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    command += ["--standalone", "--", str(script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_every_call_is_what_it_is_in_one_process(tmp_path):
    sys.path.insert(0, str(HERE))
    try:
        import every_call
    finally:
        sys.path.remove(str(HERE))
    done = torchrun(4, HERE / "every_call.py", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    for rank, expected in enumerate(simulate(4, every_call.program, every_call.groups)):
        results = torch.load(tmp_path / f"{rank}.pt")
        assert results.keys() == expected.keys()
        for name, x in results.items():
            if name.startswith("large started"):  # what is started and large, gloo sums
                torch.testing.assert_close(x, expected[name])
            else:
                assert x.equal(expected[name]), name


def test_a_job_trains_as_it_does_in_one_process(tiny, tmp_path):
    made = tiny(1, 2)

    def program(rank, run):
        losses = []
        for _ in range(3):
            rank.step(run)
            losses.append((run.result.loss, run.result.gradient_norm))
        return losses

    expected = made.simulate(program)[0]
    log, text = tmp_path / "metrics.jsonl", HERE / "conftest.py"
    done = torchrun(
        4, made.folder / "main.py", "--steps", "3", "--data", str(text), "--log", str(log), "--timeout", "30"
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("\n") == 3 and done.stdout.startswith("step 1/3  loss ")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3] and all(line["tokens"] == 60 for line in lines)
    for line, (loss, norm) in zip(lines, expected, strict=True):
        assert line["loss"] == pytest.approx(loss, rel=1e-12) and line["grad_norm"] == pytest.approx(norm, rel=1e-11)


def test_an_exception_of_one_rank_is_shown_once(tiny):
    made = tiny(1, 1)
    path = made.folder / "rank_001.py"
    path.write_text(
        path.read_text().replace("    x = run.receive", "    raise KeyError('boom')\n    x = run.receive", 1)
    )
    done = torchrun(2, made.folder / "main.py", "--data", str(HERE / "conftest.py"), "--timeout", "30")
    assert done.returncode == 1
    assert done.stderr.count("KeyError: 'boom'") == 1 and "rank 1:\nTraceback" in done.stderr
    assert "in step 1" in done.stderr and done.stderr.count("Traceback") <= 2  # the other is torchrun's


def test_faults_of_the_start_are_one_line(tiny):
    made = tiny(1, 1)

    def start(*arguments, **environment):
        command = [sys.executable, str(made.folder / "main.py"), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), **environment}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    alone = start()
    assert alone.returncode == 2
    assert alone.stderr == (
        f"tiny is a job of 2 processes, and this is 1: torchrun --nproc-per-node 2 {made.folder / 'main.py'}\n"
    )
    unwritable = start("--log", "/no/where/m.jsonl", RANK="0", WORLD_SIZE="2")
    said = "rank 0: --log /no/where/m.jsonl cannot be written: No such file or directory\n"
    assert unwritable.returncode == 2 and unwritable.stderr == said
    lost = start("--data", "/no/where", RANK="1", WORLD_SIZE="2")
    assert lost.returncode == 2 and lost.stderr == "rank 1: no such file or folder: /no/where\n"


def test_the_handshake():
    def shake(facts, timeout=1.0):
        store = dist.HashStore()
        for rank, card in enumerate(facts[1:], start=1):
            store.set(f"moec/{rank}", card)
            store.add("moec/arrived", 1)
        shake_hands(store, 0, 3, {"the program": facts[0]}, timedelta(seconds=timeout))

    shake(("a", "the program: a", "the program: a"))
    with pytest.raises(Refusal, match="after 0 s, 1 of 3 ranks have not come: 2"):
        shake(("a", "the program: a"), 0.05)
    store = dist.HashStore()
    store.set("moec/0", "the program: a\nthe data: x")
    store.add("moec/arrived", 1)
    with pytest.raises(Refusal, match="the data is y here, and x on rank 0"):
        shake_hands(store, 1, 2, {"the program": "a", "the data": "y"}, timedelta(seconds=1))

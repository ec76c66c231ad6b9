"""Real processes over gloo give what the ranks in one process give, and say what keeps them from starting."""

import json
import os
import re
import shutil
import socket
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
    command += ["--standalone", "--", str(script), *arguments]
    return subprocess.run(command, env=quiet_environment(), capture_output=True, text=True, timeout=120, check=False)


def quiet_environment():
    path = os.pathsep.join([str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": path}


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
    assert done.stdout.startswith("step 1/3  loss ") and "\nstep 3/3  loss " in done.stdout
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3] and all(line["tokens"] == 60 for line in lines)
    for line, (loss, norm) in zip(lines, expected, strict=True):
        assert line["loss"] == pytest.approx(loss, rel=1e-12) and line["grad_norm"] == pytest.approx(norm, rel=1e-11)


def test_two_machines(tiny, tmp_path):
    made = tiny(2, 1)

    def program(rank, run):
        for _ in range(2):
            rank.step(run)
        return run.result.loss

    expected = made.simulate(program)[0]
    log, text = tmp_path / "metrics.jsonl", HERE / "conftest.py"
    arguments = ("--steps", "2", "--data", str(text), "--log", str(log), "--timeout", "60")
    first, second = two_agents(2, made.folder / "main.py", arguments, (HERE, HERE))
    assert first[0] == second[0] == 0, first[2][-3000:] + second[2][-3000:]
    loss = json.loads(log.read_text().splitlines()[-1])["loss"]
    assert loss == pytest.approx(expected, rel=1e-12)
    assert sorted([first[1].count("step 2/2"), second[1].count("step 2/2")]) == [0, 1]


def test_data_that_only_one_machine_has_is_refused_on_both(tiny, tmp_path):
    made = tiny(1, 1)
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    (here / "text").write_text("only one machine has this " * 9)
    arguments = 1, made.folder / "main.py", ("--data", "text", "--timeout", "60"), (here, there)
    for code, _, error in two_agents(*arguments):
        assert code == 1  # torchrun's own
        assert error.count("no such file or folder: text") == 1, error
        assert re.search(r"^rank [01] on \S+: no such file or folder: text$", error, re.M)
        assert "  not so on 1 of 2 ranks: each machine reads files of its own" in error
    (there / "text").write_text("and another has that, and more " * 9)
    for _, _, error in two_agents(*arguments):
        assert error.count("the data is not the same on all ranks") == 1, error
        assert error.count("text 234 ") == 1 and error.count("text 279 ") == 1


@pytest.mark.sweep
def test_machines_with_different_programs_are_refused(tiny, tmp_path):
    made = tiny(2, 2)
    here, there = made.folder, tmp_path / "there"
    shutil.copytree(here, there)
    edit(there / "stage_1.py", "def ", "# by hand\ndef ")
    for code, _, error in two_agents(
        4, "main.py", ("--data", str(HERE / "conftest.py"), "--timeout", "60"), (here, there)
    ):
        assert code == 1  # torchrun's own
        assert error.count("the program is not the same on all ranks") == 1, error


def test_faults_of_the_start_are_said_once(tiny):
    made = tiny(1, 1)
    command = [sys.executable, str(made.folder / "main.py")]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
    alone = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert alone.returncode == 2
    assert alone.stderr == (
        f"tiny is a job of 2 processes, and this is 1: torchrun --nproc-per-node 2 {made.folder / 'main.py'}\n"
    )
    unwritable = torchrun(2, made.folder / "main.py", "--log", "/no/where/m.jsonl", "--timeout", "30")
    assert unwritable.stderr.count("rank 0 on ") == 1
    assert ": --log /no/where/m.jsonl cannot be written: No such file or directory\n" in unwritable.stderr
    lost = torchrun(2, made.folder / "main.py", "--data", "/no/where", "--timeout", "30")
    assert lost.stderr.startswith("no such file or folder: /no/where\n"), lost.stderr
    assert lost.stderr.count("no such file") == 1


def told(data, faults=("", "", ""), arriving=3, timeout=1.0):
    """What rank 2 hears when it comes last."""
    store = dist.HashStore()
    for rank in range(3 - arriving, 2):
        card = {
            "host": "a",
            "fault": faults[rank],
            "own": f"r{rank}",
            "facts": {"the program": "p", "the data": data[rank]},
        }
        store.set(f"moec/{rank}", json.dumps(card))
        store.add("moec/arrived", 1)
    facts = {"the program": "p", "the data": data[2]}
    return shake_hands(store, 2, 3, "b", facts, "r2", faults[2], timedelta(seconds=timeout))


def test_the_handshake():
    assert told("xxx") == ["r0", "r1", "r2"]
    with pytest.raises(Refusal, match=r"^after 0 s, 1 of 3 have not come: rank 0$"):
        told("xxx", arriving=2, timeout=0.05)
    with pytest.raises(Refusal) as caught:
        told("xxy")
    assert str(caught.value) == "the data is not the same on all ranks\n  ranks 0 to 1 on a: x\n  rank 2 on b: y"
    with pytest.raises(Refusal) as caught:
        told("xxx", ("", "", "no such file: /x"))
    expected = "rank 2 on b: no such file: /x\n  not so on 2 of 3 ranks: each machine reads files of its own"
    assert str(caught.value) == expected
    with pytest.raises(Refusal, match=r"^no such file: /x$"):
        told("xxx", ("no such file: /x",) * 3)


def test_whoever_comes_too_late_hears_what_the_others_heard():
    store = dist.HashStore()
    for rank in (1, 2, 0):  # the first waits in vain
        with pytest.raises(Refusal, match=r"^after 0 s, 2 of 3 have not come: ranks 0, 2$"):
            shake_hands(store, rank, 3, "b", {}, f"r{rank}", "", timedelta(seconds=0.05))


def two_agents(processes, script, arguments, folders):
    """Two torchrun of so many processes each, as on two machines: (exit status, output, errors) of each."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nnodes", "2"]
    command += [
        "--nproc-per-node",
        str(processes),
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        f"localhost:{port}",
        "--rdzv-id",
        "tiny",
    ]
    command += ["--local-addr", "localhost", "--", str(script), *arguments]
    started = [
        subprocess.Popen(
            command, cwd=folder, env=quiet_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for folder in folders
    ]
    results = []
    for agent in started:
        output, errors = agent.communicate(timeout=180)
        results.append((agent.returncode, output, errors))
    return results


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))

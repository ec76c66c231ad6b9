"""Runs under torchrun that stop and go on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plain import read_plainly

from moec.checkpoint.folders import latest, steps_below
from moec.checkpoint.verify import faults_of

DATA = str(Path(__file__).parents[1] / "conftest.py")


def torchrun(made, *arguments, limit=""):
    world = 2 * made.dp * made.tp
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(world), "--", str(made.folder / "main.py"), "--data", DATA, "--timeout", "60"]
    if limit:
        command = ["bash", "-c", f'{limit}; exec "$@"', "-", *command]
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": root}
    return subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, text=True, timeout=180, check=False
    )


def losses(log):
    return {line["step"]: line["loss"] for line in map(json.loads, log.read_text().splitlines()) if "loss" in line}


def five_steps(rank, run):
    """The losses."""
    found = []
    for _ in range(5):
        rank.step(run)
        found.append(run.result.loss)
    return found


def test_a_run_goes_on_under_another_mesh(tiny, tmp_path):
    save, log = tmp_path / "ck", tmp_path / "metrics.jsonl"
    first = tiny(1, 1)
    whole = dict(enumerate(first.simulate(five_steps)[0], start=1))
    second = tiny(1, 2)
    options = ("--save", str(save), "--every", "2", "--log", str(log))
    done = torchrun(first, "--steps", "3", "--keep", "1", *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [path.name for path in steps_below(save)] == ["step_00000003"]
    again = torchrun(first, "--steps", "5", *options)
    assert again.returncode == 1 and f"{save} holds the checkpoints of a run up to step 3: --resume" in again.stderr
    (save / "step_00000009").mkdir()  # of a save that was cut off
    done = torchrun(second, "--steps", "5", "--resume", str(save), *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"going on after step 3, from {save}/step_00000003, written by 2 ranks" in done.stdout
    assert "step_00000009 is not whole" in done.stdout
    assert losses(log) == pytest.approx(whole, rel=1e-12) and len(losses(log)) == 5
    assert list(faults_of(latest(save))) == [] and latest(save).name == "step_00000005"
    path = next(latest(save).glob("rank_00002*"))
    path.write_bytes(path.read_bytes()[:-9] + b"123456789")
    done = torchrun(first, "--steps", "7", "--resume", str(save))
    assert done.returncode == 1 and done.stderr.count("does not have its check sum") == 1
    assert (
        str(path) in done.stderr
        and 'Traceback (most recent call last):\n  File "/' not in done.stderr.partition("E1")[0]
    )


def test_a_save_that_fails_leaves_the_one_before(tiny, tmp_path):
    """No file may grow beyond 4 KiB: the second step's would, as on a full disk."""
    save = tmp_path / "ck"
    made = tiny(1, 1)
    assert torchrun(made, "--steps", "1", "--save", str(save)).returncode == 0
    before = read_plainly(latest(save)).tensors
    arguments = ("--steps", "3", "--resume", str(save), "--save", str(save), "--every", "2")
    done = torchrun(made, *arguments, limit="ulimit -f 4")
    assert done.returncode == 1
    assert done.stdout.count("step 3/3") == 1, "training goes on"
    warned = [line for line in done.stderr.splitlines() if line.startswith("warning: step 2 was not saved: rank ")]
    assert len(warned) == 1 and warned[0].endswith(f"File too large; {save}/step_00000001 is the last that was")
    assert "step 3 was not saved: rank" in done.stderr
    assert sorted(path.name for path in save.iterdir()) == ["saved_by.json", "step_00000001"]
    assert {key: x.tobytes() for key, x in read_plainly(latest(save)).tensors.items()} == {
        key: x.tobytes() for key, x in before.items()
    }

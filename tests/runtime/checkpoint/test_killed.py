"""A save that is killed at any call that writes leaves the old state or the new one."""

import os
import shutil
import signal
from pathlib import Path

import killed_save
import pytest
import torch

from moec.checkpoint.boxes import whole
from moec.checkpoint.folders import latest
from moec.checkpoint.verify import faults_of
from moec.runtime.checkpoint.read import Checkpoint


def in_a_child(folder: Path, step: int, at: int, half: bool) -> int:
    """The signal that ended the save, or 0."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)  # a fork has none of the others
            killed_save.interrupted(at, half)
            killed_save.save(folder, step)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def loaded(folder: Path) -> int:
    """The step of the state that a load gives, which is whole."""
    found = latest(folder)
    assert list(faults_of(found)) == []
    with Checkpoint.open(found) as checkpoint:
        value = checkpoint.read("weight/w", whole((60, 50)))
        step = checkpoint.manifest.progress.step
    assert value.equal(killed_save.value_of(step))
    return step


@pytest.mark.parametrize("half", [False, True])
def test_the_old_state_or_the_new(tmp_path, half):
    first = tmp_path / "first"
    assert in_a_child(first, 3, 0, half) == 0 and loaded(first) == 3
    found, at = [], 0
    while True:
        at += 1
        folder = tmp_path / str(at)
        shutil.copytree(first, folder)
        ended = in_a_child(folder, 6, at, half)
        found.append(loaded(folder))
        if ended == 0:
            break
        assert ended == signal.SIGKILL
        assert in_a_child(folder, 9, 0, half) == 0 and loaded(folder) == 9  # and the next save finds its way
        assert [path.name for path in folder.iterdir()] == ["step_00000009"]
        shutil.rmtree(folder)
    assert at > 20 and found == sorted(found) and set(found) == {3, 6}


def test_an_interrupted_save_of_the_same_step(tmp_path):
    for at in range(1, 12):
        in_a_child(tmp_path, 3, at, False)
        assert latest(tmp_path) is None
    assert in_a_child(tmp_path, 3, 0, False) == 0 and loaded(tmp_path) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000003"]

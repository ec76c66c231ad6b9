"""Which checkpoint a run goes on from: never one of another run, unless it is named."""

import json

import pytest
from plain import trained
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

from moec.checkpoint.damage import Damage
from moec.checkpoint.folders import latest
from moec.checkpoint.manifest import Progress
from moec.checkpoint.owner import Owner
from moec.runtime.attempt import Past
from moec.runtime.checkpoint.resume import resumed, said
from moec.runtime.checkpoint.saver import Saver, Saving


@pytest.fixture
def job(tiny, tmp_path):
    """Of two ranks; and what saves a step of it, as a run, to a folder below the test's."""
    made = tiny(1, 1)
    plan = json.loads((made.folder / "plan.json").read_text())
    runs, _ = trained(made, 1)

    def save(folder, step, run):
        store = HashStore()
        saving = Saving(tmp_path / folder, None, None, run, 7, "data", {}, plan, False, 60.0)
        savers = [Saver(saving, each, store, "here") for each in runs]
        for saver, each in zip(savers, runs, strict=True):
            each.step, each.asked_to_stop = step, False
            saver.save()
        for saver in savers:
            saver.finish()
        return str(tmp_path / folder)

    return made.job, save


def test_a_run_that_was_not_restarted(job, tmp_path):
    job, save = job
    x, y = save("x", 2, "a"), save("y", 6, "b")
    first = Past("c")
    assert resumed(job, None, str(tmp_path / "new"), first) is None
    with pytest.raises(Damage, match=f"{x} holds the checkpoints of a run up to step 2: --resume {x} goes on$"):
        resumed(job, None, x, first)
    assert resumed(job, x, x, first).manifest.progress.step == 2
    assert resumed(job, y, str(tmp_path / "new"), first).manifest.progress.step == 6
    with pytest.raises(Damage, match=f"{x} holds other checkpoints than {y}, up to step 2: --resume {x} goes on with"):
        resumed(job, y, x, first)
    early = f"{save('y', 8, 'b')}/step_00000006"
    with pytest.raises(Damage, match=f"{y} holds later checkpoints than {early}, up to step 8: save elsewhere"):
        resumed(job, early, y, first)


def test_a_restart_goes_on_with_its_own(job, tmp_path):
    job, save = job
    y = save("y", 6, "b")
    x = str(tmp_path / "x")
    begun = Past("a", begun=True, saves=True)
    assert resumed(job, y, x, begun).manifest.progress.step == 6, "nothing is saved yet"
    assert resumed(job, None, x, begun) is None
    save("x", 7, "a")
    assert resumed(job, y, x, begun).manifest.progress.step == 7
    assert resumed(job, None, x, begun).manifest.progress.step == 7
    with pytest.raises(Damage, match="holds the checkpoints of a run up to step 7"):
        resumed(job, None, x, Past("a"))


def test_a_restart_leaves_alone_what_is_another_runs(job, tmp_path):
    job, save = job
    x = save("x", 4, "b")
    with pytest.raises(Damage, match=r"another run saves to .*/x now, from here since .*which torchrun has restarted"):
        resumed(job, None, x, Past("a", begun=True, saves=True))
    with pytest.raises(Damage, match="holds the checkpoints of a run up to step 4"):
        resumed(job, None, x, Past("a", begun=True))
    Owner.made("a", "there").claim(tmp_path / "x")
    with pytest.raises(Damage, match="holds the checkpoints of a run up to step 4"):
        resumed(job, None, x, Past("a", begun=True, saves=True))


def test_what_is_said_moves_no_cursor(job, tmp_path):
    job, save = job
    x = save("x", 4, "b")
    checkpoint = resumed(job, x, None, Past("a"))
    progress = checkpoint.manifest.progress
    odd = Progress(progress.step, progress.cursor, progress.updates, progress.seed, "\x1b[2J\ud800", progress.experts)
    object.__setattr__(checkpoint.manifest, "progress", odd)
    lines = said(checkpoint, "mine", 4).splitlines()
    assert lines[0] == f"going on after step 4, from {latest(tmp_path / 'x')}, written by 2 ranks"
    assert lines[1] == "nothing is left to do: step 4 is done, and --steps is 4"
    assert lines[2] == r"warning: it was made on other data (\x1b[2J\ud800), and this is mine"

"""Which folder counts, which is made, and which goes."""

from pathlib import Path

import pytest

from moec.checkpoint.damage import Damage
from moec.checkpoint.folders import check_can_save, chosen, commit, fresh, latest, prune, remove, steps_below


def whole(folder, step):
    made = fresh(folder, step)
    (made / "rank_00000.safetensors").write_bytes(b"x")
    commit(made, b"text")
    return made


def names(folder):
    return [path.name for path in steps_below(folder)]


def test_a_folder_counts_from_its_manifest_on(tmp_path):
    folder = tmp_path / "not" / "there"
    with pytest.raises(Damage, match="is no folder of checkpoints"):
        chosen(folder)
    fresh(folder, 3)
    assert latest(folder) is None
    with pytest.raises(Damage, match="holds no whole checkpoint"):
        chosen(folder)
    with pytest.raises(Damage, match=r"step_00000003 is not whole: it has no manifest\.json"):
        chosen(folder / "step_00000003")
    made = whole(folder, 3)
    assert made.name == "step_00000003" and latest(folder) == chosen(folder) == chosen(made) == made
    fresh(folder, 6)
    assert chosen(folder) == made


def test_what_is_whole_is_never_written_over(tmp_path):
    first, second = whole(tmp_path, 3), whole(tmp_path, 3)
    assert [path.name for path in (first, second)] == ["step_00000003", "step_00000003.2"] and latest(
        tmp_path
    ) == second
    assert fresh(tmp_path, 3).name == fresh(tmp_path, 3).name == "step_00000003.3"
    assert latest(tmp_path) == second


def test_the_last_ones_stay(tmp_path):
    for step in (2, 4, 6, 6, 8):
        whole(tmp_path, step)
    fresh(tmp_path, 1)
    fresh(tmp_path, 10)  # one that is being written
    (tmp_path / "step_12").mkdir()
    (tmp_path / "notes").write_text("mine")
    prune(tmp_path, 2)
    assert names(tmp_path) == ["step_00000006.2", "step_00000008", "step_00000010"]
    prune(tmp_path, None)
    assert names(tmp_path) == ["step_00000006.2", "step_00000008", "step_00000010"]
    assert (tmp_path / "step_12").is_dir() and (tmp_path / "notes").is_file()


def test_where_a_run_can_save(tmp_path):
    check_can_save(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "in", Path("/proc/foo")):
        with pytest.raises(Damage, match=f"--save {folder} cannot be written to: .*: name another folder"):
            check_can_save(folder)
    with pytest.raises(Damage, match="has the name of a checkpoint"):
        check_can_save(tmp_path / "step_00000003")
    assert not (tmp_path / "step_00000003").exists()


def test_only_what_is_ours_goes(tmp_path):
    for step in (2, 4, 6):
        whole(tmp_path, step)
    prune(tmp_path, 1, {"step_00000004", "step_00000006"})
    assert names(tmp_path) == ["step_00000002", "step_00000006"]


def test_what_is_not_ours_stays(tmp_path):
    made = whole(tmp_path, 3)
    (made / "notes").write_text("mine")
    remove(made)
    assert [path.name for path in made.iterdir()] == ["notes"] and latest(tmp_path) is None

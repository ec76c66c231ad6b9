"""`moec checkpoint` and `moec export`, as a user calls them."""

import json
import os
import subprocess
import sys

import pytest
import torch
from plain import save, trained
from safetensors.torch import load_file, save_file

from moec.cli import main


@pytest.fixture
def saved(tiny, tmp_path):
    """A folder of a run with two steps."""
    made = tiny(1, 2)
    for steps in (1, 2):
        runs, _ = trained(made, steps)
        save(made, runs, tmp_path / "ck")
    return tmp_path / "ck"


def test_show(saved, capsys):
    assert main(["checkpoint", "show", str(saved)]) == 0
    said = capsys.readouterr().out
    assert f"{saved}/step_00000001: step 1, " in said and f"{saved}/step_00000002: step 2, " in said
    assert "written by 4 ranks of tiny" in said and "next sample 24, seed 7, data: this file" in said
    assert main(["checkpoint", "show", str(saved / "step_00000002")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  weight/layers.1.up.weight    F64   [7, 6]               in 2" in lines
    assert main(["checkpoint", "show", str(saved), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)[str(saved / "step_00000002")]
    assert record["step"] == 2 and record["tensors"]["weight/layers.1.up.weight"]["shape"] == [7, 6]


def test_what_is_shown_cannot_move_a_cursor(tiny, tmp_path, capsys):
    made = tiny(1, 1)
    plan = made.folder / "plan.json"
    plan.write_text(plan.read_text().replace('"name": "tiny"', '"name": "a\\u001b[2J", "unread": ["count\\u0007"]'))
    runs, _ = trained(made, 1)
    step = save(made, runs, tmp_path / "ck")
    (step / ".DS_Store").write_text("x")
    assert main(["checkpoint", "show", str(step)]) == 0
    assert main(["checkpoint", "verify", str(step)]) == 0
    assert main(["export", str(step), "-o", str(tmp_path / "m.safetensors")]) == 0
    said = capsys.readouterr().out
    assert r"ranks of a\x1b[2J," in said and ".DS_Store is not part of the checkpoint" in said
    assert said.endswith("left out, since the model saves them and no program reads them: count\\x07\n")
    assert all(line.isprintable() for line in said.splitlines())


def test_verify(saved, capsys):
    assert main(["checkpoint", "verify", str(saved)]) == 0
    assert capsys.readouterr().out.count("whole, and every check sum is right") == 2
    (saved / "step_00000002" / "rank_00001.safetensors").unlink()
    (saved / "step_00000001" / "manifest.json").unlink()
    assert main(["checkpoint", "verify", str(saved)]) == 1
    said = capsys.readouterr().out
    assert "step_00000002/rank_00001.safetensors cannot be read: No such file or directory" in said
    assert "step_00000001 has no manifest.json: a save that was cut off, or a file that is missing" in said
    assert main(["checkpoint", "verify", str(saved), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["whole"] is False


def test_export(saved, tmp_path, capsys):
    output = tmp_path / "model.safetensors"
    assert main(["export", str(saved), "-o", str(output), "--dtype", "bf16"]) == 0
    assert len(load_file(output)) == 9 and capsys.readouterr().out.startswith(str(output))
    assert main(["export", str(saved), "-o", str(tmp_path / "no" / "where")]) == 2
    assert "E507" in capsys.readouterr().err
    path = next((saved / "step_00000002").glob("rank_*"))
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["export", str(saved), "-o", str(tmp_path / "again.safetensors")]) == 2
    error = capsys.readouterr().err
    assert "E508" in error and path.name in error and "Traceback" not in error
    assert not list(tmp_path.glob("*again*"))


def test_an_export_goes_where_a_link_leads(saved, tmp_path):
    target, link = tmp_path / "old.safetensors", tmp_path / "link.safetensors"
    save_file({"old": torch.zeros(3)}, target)
    link.symlink_to(target)
    assert main(["export", str(saved), "-o", str(link)]) == 0
    assert link.is_symlink() and len(load_file(target)) > 1


def test_what_is_no_file_stays(saved, tmp_path, capsys):
    pipe, loop = tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    for place, why in ((pipe, "it is no plain file"), (loop, "Too many levels of symbolic links")):
        assert main(["export", str(saved), "-o", str(place)]) == 2
        assert f"`{place}` cannot be written: {why}" in capsys.readouterr().err
    assert main(["export", str(saved), "-o", str(tmp_path)]) == 2
    assert "cannot be written: Is a directory" in capsys.readouterr().err
    assert pipe.is_fifo() and loop.is_symlink()


@pytest.mark.parametrize(
    "arguments", [["checkpoint", "show"], ["checkpoint", "verify"], ["export", "-o", "x"]], ids=str
)
def test_a_name_that_is_empty(arguments, capsys):
    assert main([*arguments, ""]) == 2
    assert "the name of the folder is empty" in capsys.readouterr().err


def test_what_needs_no_torch_imports_none(saved):
    program = "import sys; from moec.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    for action in ("show", "verify"):
        command = [sys.executable, "-c", program, "checkpoint", action, str(saved)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "False"

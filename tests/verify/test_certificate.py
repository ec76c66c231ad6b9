"""What a certificate speaks for, and when main.py warns that it does not speak for what runs."""

import json
import shutil
from pathlib import Path

import pytest

from moec.cli import main
from moec.runtime.certificate import CERTIFICATE, Local, mixed, warning

TINY = str(Path(__file__).resolve().parents[2] / "examples" / "tiny_moe.plan")
BUILD = Path("build/tiny_moe")
RANKS = 4


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For 4 ranks, and not verified."""
    folder = tmp_path_factory.mktemp("compiled") / BUILD
    moec("compile", "-o", str(folder))
    return folder


@pytest.fixture
def folder(compiled_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work on, where a command looks for it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(compiled_once, tmp_path / BUILD)
    return tmp_path / BUILD


def moec(command: str, *options: str) -> int:
    return main([command, TINY, "--set", "mesh.ep=1", *options])


def warned(folder: Path) -> str:
    """What rank 0 warns of when all ranks start from this folder."""
    found = [Local.read(folder, f"rank_{rank:03d}.py") for rank in range(RANKS)]
    return warning(folder, found[0], [local.card for local in found])


def record(folder: Path) -> dict:
    return json.loads((folder / CERTIFICATE).read_text(encoding="utf-8"))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_a_compile_states_what_was_checked(folder: Path) -> None:
    assert record(folder)["static"] == {"proved": True, "ranks": RANKS, "classes": 2, "faults": []}
    assert record(folder)["numbers"] == [] and not warned(folder)


def test_a_verify_adds_its_run(folder: Path) -> None:
    assert moec("verify") == 0
    (run,) = record(folder)["numbers"]
    assert run["equal"] and run["bodies"] == record(folder)["programs"]["bodies"]
    assert run["sizes"]["seq"] == 7 and run["choices_of_experts"] > 0 and not warned(folder)
    assert moec("verify", "--exact-shape") == 0
    exact, small = record(folder)["numbers"]
    assert small == run and exact["sizes"]["seq"] == 64 and exact["layers"] == [f"layers.{n}" for n in range(4)]


def test_runs_hold_for_other_sizes_and_not_for_other_bodies(folder: Path) -> None:
    moec("verify")
    before = record(folder)
    moec("compile", "--set", "model.seq=32")
    after = record(folder)
    assert after["numbers"] == before["numbers"] and after["programs"]["bodies"] == before["programs"]["bodies"]
    assert after["programs"]["sizes"] != before["programs"]["sizes"]
    moec("compile", "--set", "mesh.tp=4")
    assert record(folder)["numbers"] == []
    moec("compile")
    assert record(folder)["numbers"] == []


def test_a_comment_computes_nothing(folder: Path) -> None:
    edit(folder / "stage_0.py", 'all_reduce(attn_out, "tp")', 'all_reduce(attn_out, "tp")  # here,')
    assert not warned(folder)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("stage_1.py", "1e-05", "1e-06", "the stage files"),
        ("sizes.py", "SEQ = 64", "SEQ = 32", "sizes.py"),
        ("rank_003.py", "for i in range", "for j in range", "the rank files"),
        ("plan.json", '"lr": 0.003', '"lr": 0.3', "plan.json"),
    ],
)
def test_an_edit_is_warned_of(folder: Path, file: str, old: str, new: str, said: str) -> None:
    edit(folder / file, old, new)
    assert warned(folder) == f"{said} changed since these programs were checked"


def test_a_certificate_that_says_no(folder: Path) -> None:
    edit(folder / "stage_1.py", "1e-05", "1e-02")
    assert moec("verify", "--build", str(folder)) == 1
    assert not record(folder)["numbers"][0]["equal"]
    assert warned(folder) == "these programs did not pass their proof"
    edit(folder / "stage_1.py", "1e-02", "1e-05")
    assert moec("verify", "--build", str(folder)) == 0 and not warned(folder)


def test_a_certificate_that_is_gone_or_broken(folder: Path) -> None:
    (folder / CERTIFICATE).write_text('{"programs": []}', encoding="utf-8")
    assert warned(folder) == "certificate.json cannot be read"
    (folder / CERTIFICATE).unlink()
    assert warned(folder) == "nothing says that these programs were ever checked: there is no certificate.json"


def test_it_goes_where_it_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = record(folder)
    assert moec("verify", "--certificate", "mine.json") == 0
    assert "written to mine.json" in capsys.readouterr().out
    assert json.loads(Path("mine.json").read_text(encoding="utf-8"))["numbers"] and record(folder) == before
    assert moec("verify", "--certificate", "no/where/mine.json") == 2
    assert "error[E507]" in capsys.readouterr().err


def test_programs_that_are_not_in_the_folder_get_none_there(folder: Path) -> None:
    before = record(folder)
    assert moec("verify", "--set", "model.seq=32") == 0
    assert record(folder) == before


def test_files_of_two_compiles_do_not_start_together(folder: Path) -> None:
    moec("compile", "--set", "schedule=gpipe", "-o", "other")
    (folder / "rank_003.py").write_text(Path("other/rank_003.py").read_text())
    cards = [Local.read(folder, f"rank_{rank:03d}.py").card for rank in range(RANKS)]
    assert mixed(cards) == (
        "rank 3 has another schedule than rank 2, and both run stage_1: of different compiles?"
    ) or mixed(cards).startswith("rank 2 has another schedule than rank 3")
    assert not mixed(cards[:2])


def test_comments_in_the_sizes_and_main_py(folder: Path) -> None:
    edit(folder / "sizes.py", "SEQ = 64", "SEQ = 64  # mine")
    assert moec("verify", "--build", str(folder)) == 0 and not warned(folder)
    edit(folder / "main.py", "main(Path", "print()\n    main(Path")
    assert warned(folder) == "main.py changed since these programs were checked"


def test_a_file_of_another_plan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "stage_2.py").write_text("", encoding="utf-8")
    assert moec("verify", "--build", str(folder)) == 1
    assert "stage_2.py is not of this plan, which has no such file" in capsys.readouterr().out

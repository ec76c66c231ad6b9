"""`moec fmt`, `moec new` and `moec explain`: what is written, what is left alone, and exit status."""

import io
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from moec.cli import main
from moec.commands import replace_file
from moec.dsl import read_plan
from moec.dsl.codes import CODES

CANONICAL = "mesh { tp = 4   pp = 2 }\n"
OTHER = "mesh{tp=4 pp=2}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_fmt_writes_what_changes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.plan").write_text(OTHER)
    (here / "b.plan").write_text(CANONICAL)
    (here / "a.plan").chmod(0o640)
    before = (here / "b.plan").stat().st_mtime_ns
    assert main(["fmt", "a.plan", "b.plan"]) == 0
    assert capsys.readouterr().out == "a.plan is formatted\n"
    assert (here / "a.plan").read_text() == CANONICAL and stat.S_IMODE((here / "a.plan").stat().st_mode) == 0o640
    assert (here / "b.plan").stat().st_mtime_ns == before
    assert sorted(path.name for path in here.iterdir()) == ["a.plan", "b.plan"]


def test_fmt_checks_without_writing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.plan").write_text(OTHER)
    (here / "b.plan").write_text(CANONICAL)
    assert main(["fmt", "--check", "a.plan", "b.plan"]) == 1
    assert capsys.readouterr().out == "a.plan would change\n" and (here / "a.plan").read_text() == OTHER
    assert main(["fmt", "--check", "b.plan"]) == 0


def test_fmt_leaves_a_faulty_plan_and_does_the_others(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bad.plan").write_text("mesh { tp = }")
    (here / "good.plan").write_text(OTHER)
    assert main(["fmt", "bad.plan", "nowhere.plan", "good.plan"]) == 2
    out, err = capsys.readouterr()
    assert "error[E101]" in err and "error[E001]" in err and out == "good.plan is formatted\n"
    assert (here / "bad.plan").read_text() == "mesh { tp = }" and (here / "good.plan").read_text() == CANONICAL


def test_fmt_follows_a_link(here: Path) -> None:
    (here / "real.plan").write_text(OTHER)
    (here / "link.plan").symlink_to("real.plan")
    assert main(["fmt", "link.plan"]) == 0
    assert (here / "link.plan").is_symlink() and (here / "real.plan").read_text() == CANONICAL


def test_fmt_unifies_line_ends(here: Path) -> None:
    (here / "a.plan").write_bytes(b"\xef\xbb\xbf" + CANONICAL.replace("\n", "\r\n").encode())
    assert main(["fmt", "--check", "a.plan"]) == 1 and main(["fmt", "a.plan"]) == 0
    assert (here / "a.plan").read_bytes() == CANONICAL.encode()


@pytest.mark.parametrize(("given", "status"), [(OTHER, 1), (CANONICAL, 0)])
def test_fmt_of_standard_input(
    given: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, wanted, out in (
        (["fmt", "-"], 0, CANONICAL),
        (["fmt", "--check", "-"], status, "standard input would change\n" * status),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        assert main(arguments) == wanted
        assert capsys.readouterr().out == out


def test_fmt_that_is_stopped_leaves_the_plan(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    (here / "a.plan").write_text(OTHER)
    monkeypatch.setattr(replace_file.os, "fchmod", stopped)
    with pytest.raises(KeyboardInterrupt):
        main(["fmt", "a.plan"])
    assert [path.name for path in here.iterdir()] == ["a.plan"] and (here / "a.plan").read_text() == OTHER


def test_new_is_a_plan_and_says_what_is_next(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new"]) == 0
    assert capsys.readouterr().out.endswith("\nprove it: moec verify my_model.plan\n")
    plan = read_plan("my_model.plan")
    assert plan.mesh.world_size == 8 and not plan.warnings
    assert main(["fmt", "--check", "my_model.plan"]) == 0


def test_new_names_the_model(here: Path) -> None:
    assert main(["new", "bert"]) == 0 and "model bert {" in (here / "bert.plan").read_text()
    assert main(["new", "bert", "-o", "b.txt"]) == 0 and "model bert {" in (here / "b.txt").read_text()
    assert main(["new", "-o", "7b.plan"]) == 0 and "model my_model {" in (here / "7b.plan").read_text()
    assert main(["new", "a-b"]) == 2 and not (here / "a-b.plan").exists()


def test_new_overwrites_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "my_model.plan").write_text("mine")
    (here / "link.plan").symlink_to("nowhere.plan")
    assert main(["new"]) == main(["new", "-o", "link.plan"]) == main(["new", "-o", "."]) == 2
    assert capsys.readouterr().err.count("error[E505]") == 3
    assert (here / "my_model.plan").read_text() == "mine" and not (here / "nowhere.plan").exists()


def test_the_new_plan_computes_what_its_model_does(here: Path) -> None:
    assert main(["new"]) == 0 and main(["verify", "my_model.plan"]) == 0


@pytest.mark.parametrize("code", CODES)
def test_explain(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", code.lower()]) == 0
    assert capsys.readouterr().out.startswith(f"# {code}: {CODES[code]}\n")


def test_explain_lists_every_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {code}  {meaning}\n" in out for code, meaning in CODES.items())


@pytest.mark.parametrize(("asked", "near"), [("E230", "E203"), ("203", "E203"), ("E2033", ""), ("W000", "W001")])
def test_explain_suggests(asked: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", asked]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error[E118]") and (f"near it is `{near}`" in err if near else "near it" not in err)


def test_a_person_is_told_of_the_page(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    main(["check", "nowhere.plan"])
    assert "moec explain" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    main(["check", "nowhere.plan"])
    assert capsys.readouterr().err.endswith("\nmore about E001: moec explain E001\n")


@pytest.mark.parametrize("arguments", [["fmt", "--check", "-"], ["new", "-o", "/dev/full/x"], ["explain", "E203"]])
def test_answered_without_torch(arguments: list[str]) -> None:
    program = "import sys; from moec.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, input=b"").returncode == 0

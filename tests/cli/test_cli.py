"""The command line as far as it needs no compiler: exit status, streams, and that nothing is imported in vain."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from moec import __main__ as entry
from moec.cli import main

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TINY = str(EXAMPLES / "tiny_moe.plan")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "E115"),
        (["compile"], "E115"),
        (["build", TINY], "E115"),
        (["compile", TINY, "--fast"], "E115"),
        (["compile", TINY, "--", "more"], "E115"),
        (["run", TINY, "--steps", "3"], "E115"),
        (["compile", TINY, "--set"], "E115"),
        (["show", TINY, "--rank", "x"], "E115"),
        (["show", TINY, "--rank", "8"], "E115"),
        (["show", TINY, "--rank", "-1"], "E115"),
        (["show", TINY, "--stage", "2"], "E115"),
        (["show", TINY, "--mesh", "--weights"], "E115"),
        (["compile", "none.plan"], "E001"),
        (["check", TINY, "--set", "mesh.tp=3"], "E203"),
        (["verify", TINY, "--build", "nowhere"], "E504"),
        (["run", TINY, "--nproc", "3"], "E116"),
        (["run", str(EXAMPLES / "30b_moe.plan")], "E116"),
    ],
)
def test_faults_are_coded(arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert f"error[{code}]" in err and not out and "Traceback" not in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0 and capsys.readouterr().out.startswith("moec ")


def test_mesh_is_shown_and_warnings_go_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(EXAMPLES / "30b_moe.plan"), "--mesh"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("four independent axes, 4·2·16·4 = 512 ranks\n") and "warning[W001]" in err


def test_faults_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", TINY, "--json", "--set", "mesh.tp=3"]) == 2
    said = json.loads(capsys.readouterr().out)
    first = said["diagnostics"][0]
    assert not said["valid"] and first["code"] == "E203" and first["file"] == TINY and first["line"] == 12
    assert {"severity", "message", "help", "column", "label"} <= first.keys()


def test_output_that_would_be_lost_is_told_before_anything_is_compiled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["compile", TINY, "-o", str(tmp_path)]) == 2
    assert "error[E503]" in capsys.readouterr().err
    assert main(["compile", TINY, "-o", str(tmp_path / "thesis.txt")]) == 2
    assert "error[E501]" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("arguments", [["compile", TINY, "--set", "mesh.tp=3"], ["show", TINY], ["compile"]])
def test_answered_without_torch(arguments: list[str]) -> None:
    program = "import sys; from moec.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True).returncode == 0


def test_as_a_module() -> None:
    run = subprocess.run([sys.executable, "-m", "moec", "check", "none.plan"], capture_output=True, text=True)
    assert run.returncode == 2 and "E001" in run.stderr and not run.stdout


def test_an_interrupt_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("moec.cli.main", stopped)
    assert entry.main() == 130
    assert capsys.readouterr().err == "interrupted\n"

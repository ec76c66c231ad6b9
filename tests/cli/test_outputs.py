"""What commands write: files of their own kind are replaced and no others, and lines that steer no terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moec.cli import main
from moec.commands.outputs import CERTIFICATE, HARDWARE, PAGE, TRACE, check_output
from moec.compiler.cost.calibrate.entry import WRITTEN
from moec.dsl import PlanError

PLAN = """
model m { layers = 2  hidden = 16  heads = 2  ffn = 32  vocab = 32  seq = 8 }
mesh { dp = 2 }
shard { batch over dp }
schedule gpipe { batch = 4 }
"""
RED = "\x1b[31m"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a plan, and the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.plan").write_text(PLAN)
    return tmp_path


def test_a_page_and_a_timeline_are_replaced_by_later_ones_and_nothing_else_is(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["report", "s.plan"]) == 0
        assert main(["estimate", "s.plan", "--trace", "t.json"]) == 0
    page, trace = (here / "report.html").read_bytes(), (here / "t.json").read_bytes()
    assert PAGE.match(page) and TRACE.match(trace)
    capsys.readouterr()
    for arguments in (["report", "s.plan", "-o", "s.plan"], ["report", "s.plan", "-o", "t.json"]):
        assert main(arguments) == 2 and "error[E505]" in capsys.readouterr().err
    for arguments in (["estimate", "s.plan", "--trace", "s.plan"], ["estimate", "s.plan", "--trace", "report.html"]):
        assert main(arguments) == 2 and "error[E505]" in capsys.readouterr().err
    assert (here / "s.plan").read_text() == PLAN and (here / "report.html").read_bytes() == page
    assert (here / "t.json").read_bytes() == trace


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["verify", "s.plan", "--certificate", "s.plan"], "E505"),
        (["plot", "s.plan", "-o", "s.plan"], "E505"),
        (["calibrate", "-o", "s.plan"], "E505"),
        (["export", "runs", "-o", "s.plan"], "E505"),
        (["calibrate", "-o", "/dev/full"], "E507"),
        (["calibrate", "-o", "pipe"], "E507"),
        (["estimate", "s.plan", "--trace", "pipe"], "E507"),
        (["check", "s.plan", "--hardware", "pipe"], "E119"),
        (["plot", "pipe"], "E509"),
        (["report", "s.plan", "-o", ""], "E115"),
        (["compile", "s.plan", "-o", ""], "E115"),
        (["estimate", "s.plan", "--trace", ""], "E115"),
        (["estimate", "s.plan", "--routing", ""], "E115"),
        (["check", "s.plan", "--hardware", ""], "E115"),
    ],
)
def test_refused(arguments: list[str], code: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(here / "pipe")
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert f"error[{code}]" in err and not out and (here / "s.plan").read_text() == PLAN
    assert sorted(path.name for path in here.iterdir()) == ["pipe", "s.plan"]


def test_what_commands_write_is_known_again(here: Path) -> None:
    (here / "hardware.toml").write_text(f"{WRITTEN}1 rank\n")
    check_output(here / "hardware.toml", HARDWARE)
    assert main(["verify", "s.plan", "--certificate", "mine.json"]) == 0
    check_output(here / "mine.json", CERTIFICATE)
    with pytest.raises(PlanError):
        check_output(here / "mine.json", TRACE)


def test_no_name_and_no_file_steers_the_terminal(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strange = [f"s{RED}.plan", f"t{RED}.plan"]
    for path in strange:
        (here / path).write_text(PLAN)
    (here / "hw.toml").write_text(
        '[mine]\nlike = "a100"\ntitle = "\\u001b[31mRED\\u0007"\nassumed = ["\\u001b[31munits"]\n'
    )
    options = ["--hardware", "hw.toml", "--set", "hardware=mine"]
    assert main(["estimate", strange[0], *options]) == 0
    assert main(["estimate", strange[0], "--explain", "memory"]) == 0
    assert main(["compare", *strange, *options]) == 0
    assert main(["report", strange[0], "-o", f"{RED}.html"]) == 0
    assert main(["compile", strange[0], "-o", f"{RED}out", *options, "--set", "hardware.memory=1 MB"]) == 0
    assert main(["check", strange[0]]) == 0
    assert main(["show", strange[0], "--stage", "0"]) == 0
    out, err = capsys.readouterr()
    assert "\N{REPLACEMENT CHARACTER}[31mRED" in out and "\x1b" not in out + err and "\x07" not in out + err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device")
@pytest.mark.parametrize("arguments", [["fmt", "-"], ["show", "s.plan"], ["explain"], ["new"], ["--help"]])
def test_output_that_is_not_taken_is_told_in_a_line(arguments: list[str], here: Path) -> None:
    with open("/dev/full", "w") as full, open("s.plan") as plan:
        command = [sys.executable, "-m", "moec", *arguments]
        run = subprocess.run(command, stdin=plan, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error[E507]: standard output cannot be written: No space left on device\n")
    assert run.stderr.count("error") == 1 and "Traceback" not in run.stderr

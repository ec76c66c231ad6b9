"""Names of a model that are code stay names, in all that compile, verify and run do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moec.cli import main

PLAN = """
model m = python "code_named:Code" {
  width = 12
  small { width = 6 }
  inputs { x = float[batch, width] }
}
mesh { dp = 2 }
shard { batch over dp }
schedule gpipe { batch = 8 }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the plan and its module are, and where the code in its names would make a file."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "m.plan").write_text(PLAN)
    (folder / "code_named.py").write_text(Path(__file__).with_name("code_named.py").read_text())
    return folder


@pytest.mark.parametrize(
    "arguments",
    [("show", "m.plan", "--program"), ("verify", "m.plan")],
    ids=lambda arguments: " ".join(arguments),
)
def test_never_runs(folder: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert main([*arguments]) == 0
    assert not (folder / "pwned").exists()


def test_never_runs_in_the_ranks(folder: Path) -> None:
    command = [sys.executable, "-m", "moec", "run", "m.plan", "--", "--steps", "1"]
    done = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (folder / "pwned").exists()


def test_the_names_do_run_where_they_are_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the test can fail."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    from code_named import NAMES

    exec(f"with {NAMES[0].partition('; ')[2]}: pass")
    assert (folder / "pwned").exists()
    (folder / "pwned").unlink()

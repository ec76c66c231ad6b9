"""What surrounds a compile: disks that are full, two compiles at once, an interrupt, other locales and folders."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from moec.cli import main
from moec.compiler.folder import write_folder
from moec.dsl import PlanError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TINY = EXAMPLES / "tiny_moe.plan"

LIMITED = """
import pathlib, resource
from moec.compiler.folder import write_folder
from moec.dsl import PlanError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    write_folder(pathlib.Path("out"), {"main.py": "new", "rank_0.py": "x" * 5000})
except PlanError as fault:
    print(fault.diagnostics[0].code, fault.diagnostics[0].headline)
"""
"""A disk that takes no more than the beginning of a file."""

STOPPING = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
for _ in range(600):  # any thread may be the one that is told
    time.sleep(0.1)
"""

IMPORTED = """
model m = python "stopping:Net" { inputs { x = float[batch, 3] } }
mesh { dp = 2 }
shard { batch over dp }
schedule gpipe { batch = 8 }
"""


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def command(*arguments: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "moec", *map(str, arguments)]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a job in the background would not
    return subprocess.run(words, cwd=cwd, env=os.environ | variables, capture_output=True, text=True, preexec_fn=heard)


def test_a_full_disk(tmp_path: Path) -> None:
    write_folder(tmp_path / "out", {"main.py": "old"})
    before = files(tmp_path)
    run = subprocess.run([sys.executable, "-c", LIMITED], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout == "E502 `out` cannot be written: File too large\n", run.stderr
    assert files(tmp_path) == before


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no folder that root may not write to")
def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        write_folder(Path("/proc/self/out"), {"main.py": ""})
    assert caught.value.diagnostics[0].code == "E502"


def test_an_interrupt_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "stopping.py").write_text(STOPPING)
    (tmp_path / "m.plan").write_text(IMPORTED)
    write_folder(tmp_path / "out", {"main.py": "old"})
    before = files(tmp_path / "out")
    run = command("compile", "m.plan", "-o", "out", cwd=tmp_path)
    assert run.returncode == 130 and run.stderr == "interrupted\n" and not run.stdout
    assert files(tmp_path / "out") == before


@pytest.mark.sweep
def test_two_commands_at_once(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "moec", "compile", str(TINY), "-o", "out"]
    runs = [subprocess.Popen([*words, "--set", f"mesh.tp={size}"], cwd=tmp_path) for size in (1, 4)]
    assert [run.wait() for run in runs] == [0, 0]
    assert len(list((tmp_path / "out").glob("rank_*.py"))) in (4, 16)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_another_version(tmp_path: Path) -> None:
    """Whose files have other names, and which says so."""
    write_folder(tmp_path / "out", {"program_of_rank_0.py": "old", "main.py": "old", "plan.json": '{"moec": "0.0.1"}'})
    assert main(["compile", str(TINY), "-o", str(tmp_path / "out")]) == 0
    assert not (tmp_path / "out" / "program_of_rank_0.py").exists() and (tmp_path / "out" / "rank_007.py").exists()


@pytest.mark.parametrize("name", ["tiny_moe", "mixer_moe"])
def test_bytes_depend_on_the_plan_alone(name: str, tmp_path: Path) -> None:
    """Not on hashes, locale, time zone, working folder, or how plan and output are named.

    Nor on where the output is: but a module of one's own is named as seen from there.
    """
    plan, there = EXAMPLES / f"{name}.plan", tmp_path / "there"
    there.mkdir()
    assert main(["compile", str(plan), "-o", str(tmp_path / "out")]) == 0
    before = files(tmp_path / "out")
    output = "../out" if name == "mixer_moe" else "in/another/folder"
    elsewhere = {"PYTHONHASHSEED": "4242", "LC_ALL": "de_DE.UTF-8", "TZ": "Asia/Tokyo"}
    run = command("compile", os.path.relpath(plan, there), "-o", output, cwd=there, **elsewhere)
    assert run.returncode == 0, run.stderr
    assert files(there / output) == before

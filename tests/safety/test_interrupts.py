"""A compile that is stopped at any moment leaves the old output or the new one, whole, or none; the next tidies up."""

import subprocess
import sys
from pathlib import Path

import pytest

from moec.compiler.exchange import exchange

STOP_EVERYWHERE = Path(__file__).with_name("stop_everywhere.py")


@pytest.mark.parametrize("way", ["in one step", "in two renames", "where nothing was"])
@pytest.mark.parametrize("stop", ["killed", "interrupted"])
def test_whole_or_none(stop: str, way: str, tmp_path: Path) -> None:
    if way == "in one step" and not exchanges(tmp_path):
        pytest.skip("the file system cannot exchange two folders")
    run = subprocess.run([sys.executable, STOP_EVERYWHERE, stop, way, tmp_path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def exchanges(folder: Path) -> bool:
    one, other = folder / "one", folder / "other"
    one.mkdir()
    other.mkdir()
    done = exchange(one, other)
    one.rmdir()
    other.rmdir()
    return done

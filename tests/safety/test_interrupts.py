"""A compile that is stopped at any moment leaves the old output or the new one, whole, or none; the next one tidies up.

A child process writes a folder, and is interrupted or killed at the n-th line of what writes it, for every n.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from moec.compiler import folder as folder_module
from moec.compiler.exchange import exchange
from moec.compiler.folder import write_folder

OLD = {"main.py": "old", "rank_0.py": "old", "gone.py": "old"}
NEW = {"main.py": "new", "rank_0.py": "new"}
WRITERS = ("folder.py", "manifest.py", "exchange.py", "shutil.py")
FINISHED, INTERRUPTED = 0, 1


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted() -> None:
    raise KeyboardInterrupt


def stopped_at(line: int, stop: Callable[[], None], out: Path) -> int:
    """Write to a folder in a child that is stopped at a line; how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = INTERRUPTED
    try:
        seen = 0

        def count(frame: FrameType, event: str, _: object):
            nonlocal seen
            if not frame.f_code.co_filename.endswith(WRITERS):
                return None
            if event == "line":
                seen += 1
                if seen == line:
                    stop()
            return count

        sys.settrace(count)
        write_folder(out, NEW)
        status = FINISHED
    finally:
        os._exit(status)  # the child must not go on as a second test run


def exchanges(folder: Path) -> bool:
    one, other = folder / "one", folder / "other"
    one.mkdir()
    other.mkdir()
    done = exchange(one, other)
    one.rmdir()
    other.rmdir()
    return done


def held(out: Path) -> dict[str, str] | None:
    return {path.name: path.read_text() for path in out.iterdir() if path.name != ".moec"} if out.exists() else None


@pytest.mark.parametrize(
    ("there", "in_one_step"),
    [(True, True), (True, False), (False, False)],
    ids=["in one step", "in two renames", "where nothing was"],
)
@pytest.mark.parametrize("stop", [killed, interrupted])
def test_whole_or_none(
    stop: Callable[[], None], there: bool, in_one_step: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_one_step:
        monkeypatch.setattr(folder_module, "exchange", lambda *_: False)
    elif not exchanges(tmp_path):
        pytest.skip("the file system cannot exchange two folders")
    before = OLD if there else None
    out = tmp_path / "out"
    seen = []
    for line in range(1, 2000):
        if there:
            write_folder(out, OLD)
        ended = stopped_at(line, stop, out)
        seen.append(held(out))
        allowed = [before, NEW] if there and in_one_step else [before, NEW, None]
        assert seen[-1] in allowed, f"stopped at line {line}"
        write_folder(out, NEW)
        assert held(out) == NEW and [path.name for path in tmp_path.iterdir()] == ["out"], f"stopped at line {line}"
        if ended == FINISHED:
            break
        if not there:
            (out / ".moec").unlink()
            for name in NEW:
                (out / name).unlink()
            out.rmdir()
    else:
        raise AssertionError("the compile never ended")
    assert before in seen and NEW in seen and len(seen) > 50

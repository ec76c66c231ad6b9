"""Writes a folder in a child that is stopped at the n-th line of what writes it, for every n; looks at what is left.

    python stop_everywhere.py killed|interrupted "in one step"|"in two renames"|"where nothing was" FOLDER

A process of its own: it forks some hundred times, which is quick where torch is not loaded.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from moec.compiler import folder as folder_module
from moec.compiler.folder import write_folder

OLD = {"main.py": "old", "rank_0.py": "old", "gone.py": "old"}
NEW = {"main.py": "new", "rank_0.py": "new"}
WRITERS = ("folder.py", "manifest.py", "exchange.py", "shutil.py")
FINISHED, INTERRUPTED = 0, 1


def main(stop: Callable[[], None], there: bool, in_one_step: bool, folder: Path) -> None:
    """Raises AssertionError for anything but the old output, the new one, or none."""
    if not in_one_step:
        folder_module.exchange = lambda *_: False
    before = OLD if there else None
    out = folder / "out"
    seen = []
    for line in range(1, 2000):
        if there:
            write_folder(out, OLD)
        ended = stopped_at(line, stop, out)
        seen.append(held(out))
        allowed = [before, NEW] if there and in_one_step else [before, NEW, None]
        assert seen[-1] in allowed, f"stopped at line {line}"
        write_folder(out, NEW)
        assert held(out) == NEW and [path.name for path in folder.iterdir()] == ["out"], f"stopped at line {line}"
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
        os._exit(status)  # the child must not go on as a second parent


def held(out: Path) -> dict[str, str] | None:
    return {path.name: path.read_text() for path in out.iterdir() if path.name != ".moec"} if out.exists() else None


if __name__ == "__main__":
    how, way, place = sys.argv[1:]
    main(killed if how == "killed" else interrupted, way != "where nothing was", way == "in one step", Path(place))

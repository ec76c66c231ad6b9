"""Writes the emitted files to a folder, all of them or none."""

import errno
import os
import platform
import re
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from moec.compiler.exchange import exchange
from moec.compiler.manifest import ATTEMPTS, MANIFEST, check_held, manifest_text
from moec.dsl.diagnostics import plan_error


def check_folder(folder: Path) -> None:
    """Raise PlanError if `folder` is a file, cannot be written, or holds something that moec did not write.

    Programs that were edited by hand are such: a compile would lose the edit.
    """
    there = _mode(folder)  # looked at once: another compile may swap the folder at any moment
    if there is None and os.path.islink(folder):
        raise plan_error("E501", f"`{folder}` is a link that leads nowhere", "write elsewhere: -o DIR")
    if there is not None and not stat.S_ISDIR(there):
        raise plan_error("E501", f"`{folder}` is a file, and the output is a folder", "write elsewhere: -o DIR")
    above = next(parent for parent in folder.absolute().parents if there is not None or os.path.lexists(parent))
    if not above.is_dir():
        raise plan_error("E501", f"`{above}` is a file, and would hold the output folder", "write elsewhere: -o DIR")
    if not os.access(above, os.W_OK | os.X_OK):
        raise plan_error("E502", f"nothing may be written to `{above}`", "write elsewhere: -o DIR")
    if there is not None:
        check_held(folder)


def write_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Put `files`, name to text, in the place of what the folder holds; an interrupt leaves the old output or none.

    Raises PlanError as check_folder does, or if the disk does not take the files.
    """
    check_folder(folder)
    target = folder.resolve()
    fresh, old = (target.with_name(f".{target.name}.{_own()}.{end}") for end in ("new", "old"))
    try:
        _remove_litter(target)
        fresh.mkdir(parents=True)
        for name, text in files.items():
            with open(f"{fresh}/{name}", "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
        (fresh / MANIFEST).write_text(manifest_text(files), encoding="utf-8")
        _swap(fresh, target, old)
    except OSError as fault:
        raise plan_error("E502", f"`{folder}` cannot be written: {fault.strerror}", "write elsewhere: -o DIR") from None
    finally:
        for rest in (fresh, old):  # what the folder held before is now one of them
            shutil.rmtree(rest, ignore_errors=True)


def _own() -> str:
    """Names this process among all that may write to the folder, of other machines too."""
    return f"{re.sub(r'[^A-Za-z0-9-]', '', platform.node())}.{os.getpid()}"


def _remove_litter(target: Path) -> None:
    """Remove what compiles of this machine left beside `target` that were killed."""
    place = re.escape(f".{target.name}.{_own().partition('.')[0]}.")
    for name in os.listdir(target.parent) if target.parent.is_dir() else ():
        litter = re.fullmatch(rf"{place}(\d{{1,9}})\.(?:new|old)", name)
        if litter and not _is_running(int(litter[1])):
            shutil.rmtree(target.with_name(name), ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return process != os.getpid()


def _mode(folder: Path) -> int | None:
    """The kind of what is there, links followed; None if there is nothing."""
    try:
        return os.stat(folder).st_mode
    except OSError:
        return None


def _swap(fresh: Path, target: Path, old: Path) -> None:
    """Put `fresh` where `target` is, which is at `fresh` or at `old` then.

    Another compile may do the same meanwhile: whichever comes last stays, whole. Where the system cannot exchange them
    in one step, nothing is at `target` for a moment.
    """
    for _ in range(ATTEMPTS):
        try:
            with suppress(FileNotFoundError):  # there is none yet
                if exchange(fresh, target):
                    return
                os.rename(target, old)
            os.rename(fresh, target)
            return
        except BaseException as fault:
            with suppress(OSError):
                os.rename(old, target)
            # these two: another compile was faster, again
            if not isinstance(fault, OSError) or fault.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        shutil.rmtree(old, ignore_errors=True)
    raise OSError(errno.EBUSY, "other compiles keep writing to it")

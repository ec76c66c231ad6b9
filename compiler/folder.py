"""Writes the emitted files to a folder, all of them or none."""

import errno
import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from moec.dsl.diagnostics import plan_error

MANIFEST = ".moec"
"""Lists the files of a folder that moec wrote, a name a line."""

_IGNORED = {MANIFEST, "__pycache__"}
_ATTEMPTS = 100


def check_folder(folder: Path) -> None:
    """Raise PlanError if `folder` is a file, cannot be written, or holds something that moec did not write."""
    there = _mode(folder)  # looked at once: another compile may swap the folder at any moment
    if there is None and folder.is_symlink():
        raise plan_error("E501", f"`{folder}` is a link that leads nowhere", "write elsewhere: -o DIR")
    if there is not None and not stat.S_ISDIR(there):
        raise plan_error("E501", f"`{folder}` is a file, and the output is a folder", "write elsewhere: -o DIR")
    above = next(parent for parent in folder.absolute().parents if there is not None or os.path.lexists(parent))
    if not above.is_dir():
        raise plan_error("E501", f"`{above}` is a file, and would hold the output folder", "write elsewhere: -o DIR")
    if not os.access(above, os.W_OK | os.X_OK):
        raise plan_error("E502", f"nothing may be written to `{above}`", "write elsewhere: -o DIR")
    strangers = _strangers(folder) if there is not None else []
    if strangers:
        some = ", ".join(f"`{name}`" for name in strangers[:3]) + (", …" if len(strangers) > 3 else "")
        help = "move it out of the way, or write elsewhere: -o DIR"
        raise plan_error("E503", f"`{folder}` holds what moec did not write: {some}", help)


def write_folder(folder: Path, files: Mapping[str, str]) -> None:
    """Put `files`, name to text, in the place of what the folder holds; an interrupt leaves the old output or none.

    Raises PlanError as check_folder does, or if the disk does not take the files.
    """
    check_folder(folder)
    target = folder.resolve()
    fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        fresh.mkdir(parents=True)
        for name, text in files.items():
            with open(f"{fresh}/{name}", "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
        (fresh / MANIFEST).write_text("\n".join(files) + "\n", encoding="utf-8")
        _swap(fresh, target)
    except OSError as fault:
        raise plan_error("E502", f"`{folder}` cannot be written: {fault.strerror}", "write elsewhere: -o DIR") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _mode(folder: Path) -> int | None:
    """The kind of what is there, links followed; None if there is nothing."""
    try:
        return os.stat(folder).st_mode
    except OSError:
        return None


def _strangers(folder: Path) -> list[str]:
    """What is in a folder and not in its own manifest. Of one that is swapped meanwhile, what is in the new one."""
    for _ in range(_ATTEMPTS):
        try:
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return []
        except OSError as fault:
            raise plan_error(
                "E502", f"`{folder}` cannot be read: {fault.strerror}", "write elsewhere: -o DIR"
            ) from None
        try:
            names = set(os.listdir(opened))
            found = sorted(names - _manifest(opened) - _IGNORED)
            if not found or _is_at(opened, folder):
                return found
        finally:
            os.close(opened)
    raise plan_error("E502", f"other compiles keep writing to `{folder}`", "write elsewhere: -o DIR")


def _manifest(opened: int) -> set[str]:
    try:
        with open(os.open(MANIFEST, os.O_RDONLY, dir_fd=opened), encoding="utf-8") as file:
            return set(file.read().split("\n"))
    except (OSError, UnicodeDecodeError):
        return set()


def _is_at(opened: int, folder: Path) -> bool:
    """Is an opened folder still the one at its path?"""
    try:
        return os.path.samestat(os.fstat(opened), os.stat(folder))
    except FileNotFoundError:
        return False


def _swap(fresh: Path, target: Path) -> None:
    """Put `fresh` where `target` is. Another compile may do the same meanwhile: whichever comes last stays, whole."""
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            os.rename(target, old)
        try:
            os.rename(fresh, target)
            return
        except OSError as fault:
            if fault.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # these two: another compile was faster, again
                with suppress(OSError):
                    os.rename(old, target)
                raise
        finally:
            shutil.rmtree(old, ignore_errors=True)
    raise OSError(errno.EBUSY, "other compiles keep writing to it")

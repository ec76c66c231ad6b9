"""Writes the emitted files to a folder, all of them or none."""

import errno
import os
import shutil
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
    if folder.is_symlink() and not folder.exists():
        raise plan_error("E501", f"`{folder}` is a link that leads nowhere", "write elsewhere: -o DIR")
    if folder.exists() and not folder.is_dir():
        raise plan_error("E501", f"`{folder}` is a file, and the output is a folder", "write elsewhere: -o DIR")
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(parent))
    if not existing.is_dir():
        raise plan_error("E501", f"`{existing}` is a file, and would hold the output folder", "write elsewhere: -o DIR")
    beside = existing.parent if folder.exists() else existing
    if not os.access(beside, os.W_OK | os.X_OK):
        raise plan_error("E502", f"nothing may be written to `{beside}`", "write elsewhere: -o DIR")
    strangers = _strangers(folder) if folder.exists() else []
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


def _strangers(folder: Path) -> list[str]:
    manifest = folder / MANIFEST
    try:
        known = set(manifest.read_text(encoding="utf-8").split("\n"))
    except (OSError, UnicodeDecodeError):
        known = set()
    try:
        return sorted(name for name in os.listdir(folder) if name not in known | _IGNORED)
    except OSError as fault:
        raise plan_error("E502", f"`{folder}` cannot be read: {fault.strerror}", "write elsewhere: -o DIR") from None


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

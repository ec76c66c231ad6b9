"""The manifest of an output folder: what moec wrote there, so that nothing else is ever replaced."""

import os
import re
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from moec.dsl.diagnostics import PlanError, plan_error

MANIFEST = ".moec"
"""On each line the name of a file, and behind a tab the digest of its text."""

ATTEMPTS = 100
"""At what other compiles may be faster at."""

_IGNORED = {MANIFEST, "__pycache__"}


def manifest_text(files: Mapping[str, str]) -> str:
    """The manifest of these files, name to text."""
    return "".join(f"{name}\t{_digest(text.encode())}\n" for name, text in files.items())


def check_held(folder: Path) -> None:
    """Raise PlanError for what is in a folder and not in its manifest, or other than that says.

    Names and manifest are those of one compile: of a folder that another one swaps meanwhile, the new one counts.
    """
    for _ in range(ATTEMPTS):
        try:
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        except OSError as fault:
            headline = f"`{folder}` cannot be read: {fault.strerror}"
            raise plan_error("E502", headline, "write elsewhere: -o DIR") from None
        try:
            found = _not_ours(opened, folder)
            if not found or _is_at(opened, folder):
                break
        finally:
            os.close(opened)
    else:
        raise plan_error("E502", f"other compiles keep writing to `{folder}`", "write elsewhere: -o DIR")
    if found:
        raise found


def _not_ours(opened: int, folder: Path) -> PlanError | None:
    manifest = _manifest(opened)
    strangers = sorted(
        name for name in set(os.listdir(opened)) - manifest.keys() - _IGNORED if not _is_litter(name, manifest)
    )
    help = "move it out of the way, or write elsewhere: -o DIR"
    if strangers:
        return plan_error("E503", f"`{folder}` holds what moec did not write: {_some(strangers)}", help)
    edited = [name for name, digest in manifest.items() if name.endswith(".py") and _is_edited(opened, name, digest)]
    return plan_error("E503", f"`{folder}` was edited by hand: {_some(edited)}", help) if edited else None


def _is_litter(name: str, manifest: Mapping[str, str]) -> bool:
    """What is left where a file of the folder was being replaced, and that was killed."""
    litter = re.fullmatch(r"\.(.+)\.\d+\.new", name)
    return litter is not None and litter[1] in manifest


def _some(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:3]) + (", …" if len(names) > 3 else "")


def _manifest(opened: int) -> dict[str, str]:
    """Name to digest; no digest where an older moec wrote the folder."""
    try:
        with open(os.open(MANIFEST, os.O_RDONLY, dir_fd=opened), encoding="utf-8") as file:
            parts = (line.partition("\t") for line in file.read().splitlines())
            return {name: digest for name, _, digest in parts}
    except (OSError, UnicodeDecodeError):
        return {}


def _is_edited(opened: int, name: str, digest: str) -> bool:
    """Has a file another text than was written? One that is gone has none to lose."""
    try:
        with open(os.open(name, os.O_RDONLY, dir_fd=opened), "rb") as file:
            return bool(digest) and _digest(file.read()) != digest
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def _is_at(opened: int, folder: Path) -> bool:
    """Is an opened folder still the one at its path?"""
    try:
        return os.path.samestat(os.fstat(opened), os.stat(folder))
    except FileNotFoundError:
        return False

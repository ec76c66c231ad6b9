"""The folders of a run's checkpoints: one a step, whole from the moment its manifest has its name."""

import os
import re
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from os.path import realpath
from pathlib import Path
from tempfile import TemporaryFile

from moec.checkpoint.damage import Damage
from moec.checkpoint.manifest import MANIFEST
from moec.checkpoint.new_file import NewFile

_NAME = re.compile(r"step_([0-9]{8,19})(?:\.([0-9]{1,9}))?")
_OURS = re.compile(r"rank_[0-9]{3,9}\.safetensors|manifest\.json(\.new)?")


def step_of(folder: Path) -> tuple[int, int]:
    """The step that a folder is of, and which try at it; (-1, 0) if its name says neither."""
    found = _NAME.fullmatch(folder.name)
    return (int(found[1]), int(found[2] or 1)) if found else (-1, 0)


def real_step(folder: Path) -> tuple[int, int]:
    """As `step_of`, by the name that the folder has where its links lead; they may lead into a circle."""
    return step_of(Path(realpath(folder)))


def is_whole(folder: Path) -> bool:
    """Raises Damage where that cannot be seen."""
    try:
        return (folder / MANIFEST).is_file()
    except OSError as fault:
        raise Damage(f"{folder} cannot be read: {fault.strerror}") from None


def steps_below(folder: Path) -> list[Path]:
    """The folders of steps in a run's folder, the earliest first, whole or not."""
    try:
        found = [path for path in folder.iterdir() if step_of(path)[0] >= 0 and path.is_dir() and not path.is_symlink()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as fault:
        raise Damage(f"{folder} cannot be read: {fault.strerror}") from None
    return sorted(found, key=step_of)


def latest(folder: Path) -> Path | None:
    """The whole one of the latest step."""
    return next((path for path in reversed(steps_below(folder)) if is_whole(path)), None)


def chosen(folder: Path) -> Path:
    """What `--resume` means by a folder: that of a step, or the latest whole one of a run. Raises Damage."""
    if real_step(folder)[0] >= 0:
        if not is_whole(folder):
            raise Damage(
                f"{folder} is not whole: it has no {MANIFEST}" if folder.exists() else f"{folder} is not there"
            )
        return folder
    found = latest(folder)
    if found is None:
        what = f"{folder} holds no whole checkpoint" if folder.is_dir() else f"{folder} is no folder of checkpoints"
        raise Damage(what)
    return found


def fresh(folder: Path, step: int) -> Path:
    """A new folder for a step in a run's folder. What is left of a save that was cut off makes room, nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    tries = [path for path in steps_below(folder) if step_of(path)[0] == step]
    for path in tries:
        if not is_whole(path):
            remove(path)
    last = max([step_of(path)[1] for path in tries if is_whole(path)], default=0)
    made = folder / (f"step_{step:08d}.{last + 1}" if last else f"step_{step:08d}")
    made.mkdir()
    return made


def check_can_save(folder: Path) -> None:
    """Make the folder of a run, and see that files can be made in it. Raises Damage."""
    if real_step(folder)[0] >= 0:
        raise Damage(f"--save {folder} has the name of a checkpoint, and not of a folder of them: name its parent")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as fault:
        raise Damage(f"--save {folder} cannot be written to: {fault.strerror}: name another folder") from None


def commit(folder: Path, text: bytes, beat: Callable[[], None] = lambda: None) -> None:
    """From the rename on, the folder is whole. All of its files are on the disk by now.

    `beat` is called after whatever a slow disk takes long for.
    """
    new = folder / f"{MANIFEST}.new"
    with NewFile(new) as file:
        file.write(memoryview(text))
    beat()
    _sync(folder)
    beat()
    os.rename(new, folder / MANIFEST)
    _sync(folder)
    beat()
    _sync(folder.parent)


def prune(folder: Path, keep: int | None, ours: Container[str] | None = None) -> None:
    """Leave the last `keep` whole ones, each step once, and nothing of earlier saves that were cut off.

    Whose name is not among `ours`, if they are given, is not looked at.
    """
    found = [path for path in steps_below(folder) if ours is None or path.name in ours]
    whole = [path for path in found if is_whole(path)]
    last = {step_of(path)[0]: path for path in whole}
    kept = list(last.values())[-keep:] if keep else list(last.values())
    for path in found if kept else ():
        if path not in kept and (path in whole or step_of(path) < step_of(kept[-1])):
            remove(path)


def remove(folder: Path) -> None:
    """First its manifest, so that it is not whole for a moment longer than its files are."""
    with suppress(FileNotFoundError):
        os.unlink(folder / MANIFEST)
    for path in _own_files(folder):
        with suppress(FileNotFoundError):
            os.unlink(path)
    with suppress(OSError):  # what is not ours stays, and so does the folder
        os.rmdir(folder)


def strangers(folder: Path, expected: Sequence[str]) -> list[str]:
    """What lies in a step's folder and is not one of its files, but for what is hidden. Raises Damage."""
    return sorted([name for name in _names(folder) - {MANIFEST, *expected} if not name.startswith(".")])


def hidden(folder: Path) -> list[str]:
    """What a system leaves in folders, by names that begin with a dot. Raises Damage."""
    return sorted([name for name in _names(folder) if name.startswith(".")])


def _names(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError as fault:
        raise Damage(f"{folder} cannot be read: {fault.strerror}") from None


def _own_files(folder: Path) -> list[Path]:
    return sorted([path for path in folder.iterdir() if _OURS.fullmatch(path.name)])


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)

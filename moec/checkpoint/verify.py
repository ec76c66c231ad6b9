"""Is a checkpoint what was written? Every byte of it is read."""

from collections.abc import Callable, Iterator
from pathlib import Path

from moec.checkpoint.damage import Damage
from moec.checkpoint.files import Files
from moec.checkpoint.folders import hidden, is_whole, strangers
from moec.checkpoint.manifest import MANIFEST
from moec.checkpoint.parse_manifest import read_manifest


def faults_of(folder: Path) -> Iterator[str]:
    """All that is wrong with the folder of a step: each line names a file, and the tensor if its header is right."""
    try:
        if not is_whole(folder):
            yield f"{folder} has no {MANIFEST}: a save that was cut off, or a file that is missing"
            return
        manifest = read_manifest(folder)
        extra = strangers(folder, list(manifest.files))
    except Damage as damage:
        yield str(damage)
        return
    for name in extra:
        yield f"{folder / name} is not part of the checkpoint: move it away"
    with Files(folder, manifest) as files:
        broken = {name: fault for name in manifest.files if (fault := _fault(files.check_header, name))}
        yield from broken.values()
        for key, entry in manifest.tensors.items():
            for each in entry.slices:
                if each.file not in broken and (fault := _fault(files.check_slice, key, each)):
                    yield fault


def notes_on(folder: Path) -> list[str]:
    """What is no fault, and may surprise."""
    try:
        names = hidden(folder)
    except Damage:
        return []
    return [f"{folder / name} is not part of the checkpoint, and is passed over: it can be removed" for name in names]


def _fault(check: Callable[..., None], *of: object) -> str:
    try:
        check(*of)
    except Damage as damage:
        return str(damage)
    return ""

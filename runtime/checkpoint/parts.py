"""What the ranks have written, joined to one manifest."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from moec.checkpoint.manifest import Entry, File, Manifest, Progress, Slice
from moec.runtime.checkpoint.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Part:
    """What one rank wrote: a file, or nothing where it owns nothing."""

    files: Mapping[str, File]
    tensors: Mapping[str, Entry]  # with the slices of this rank alone

    @staticmethod
    def of(text: str) -> "Part":
        """As `text` gave it, on another rank of the job."""
        tree = json.loads(text)
        files = {name: File(**file) for name, file in tree["files"].items()}
        return Part(files, {key: _entry(entry) for key, entry in tree["tensors"].items()})

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))


def write_part(snapshot: Snapshot, rank: int, folder: Path, beat: Callable[[], None] = lambda: None) -> Part:
    """Write a rank's file into the folder of a step. `beat` is called as it goes on. Raises OSError."""
    if not snapshot.nbytes:
        return Part({}, {})
    name = file_of(rank)
    file, entries = snapshot.write(folder / name, beat)
    return Part({name: file}, entries)


def file_of(rank: int) -> str:
    """The name of a rank's file."""
    return f"rank_{rank:05d}.safetensors"


def joined(
    parts: Iterable[Part], progress: Progress, versions: Mapping[str, str], plan: Mapping[str, object], run: str = ""
) -> Manifest:
    """The manifest of what the ranks of a job have written, in the order of their ranks."""
    files: dict[str, File] = {}
    found: dict[str, list[Entry]] = {}
    for part in parts:
        files |= part.files
        for key, entry in part.tensors.items():
            found.setdefault(key, []).append(entry)
    tensors = {
        key: Entry(entries[0].dtype, entries[0].shape, tuple([each for entry in entries for each in entry.slices]))
        for key, entries in sorted(found.items())
    }
    return Manifest(progress, versions, plan, files, tensors, run=run)


def _entry(tree: Mapping[str, object]) -> Entry:
    dtype, shape, slices = tree["dtype"], tree["shape"], tree["slices"]
    assert isinstance(dtype, str) and isinstance(shape, list) and isinstance(slices, list)
    return Entry(dtype, tuple(shape), tuple([_slice(**each) for each in slices]))


def _slice(box: list[list[int]], file: str, at: int, crc: str) -> Slice:
    return Slice(tuple([(start, stop) for start, stop in box]), file, at, crc)

"""manifest.json: what a checkpoint is of, and of every tensor where its slices are, with check sums.

Its text begins with the digest of all that follows, so that no byte of it can change unseen.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import blake2b

from moec.checkpoint.boxes import Box

MANIFEST = "manifest.json"
FORMAT = 1
CHUNK = 1 << 20
"""Bytes of a slice that have a check sum together, and are read together."""

LAST_SEED = (1 << 64) - 1
"""The largest seed that a run may have."""

_HEAD, _TAIL = b'{"digest": "', b'",\n'
_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the run had come."""

    step: int
    cursor: int  # the number of the next sample
    updates: int  # of the weights: the steps but for those that were skipped
    seed: int
    data: str  # the fingerprint of what was read
    experts: Mapping[str, tuple[int, ...]]  # by router: the tokens that each expert got so far


@dataclass(frozen=True, slots=True)
class File:
    """One file of slices: first its header, then slice after slice with nothing between."""

    bytes: int
    header: int  # bytes of it
    crc: str  # of the header


@dataclass(frozen=True, slots=True)
class Slice:
    box: Box
    file: str
    at: int  # where its bytes begin
    crc: str  # crc32 of every chunk, eight digits each


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the state."""

    dtype: str  # a name of safetensors
    shape: tuple[int, ...]
    slices: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    progress: Progress
    versions: Mapping[str, str]
    plan: Mapping[str, object]  # plan.json of the programs that wrote it
    files: Mapping[str, File]
    tensors: Mapping[str, Entry]
    digest: str = ""
    run: str = ""  # which run wrote it: an id of its own after every start


def manifest_text(manifest: Manifest) -> bytes:
    """A line for every file and every slice."""
    body = "\n".join(_lines(manifest)).encode()
    return _HEAD + _digest(body) + _TAIL + body


def split_digest(text: bytes) -> tuple[str, bytes] | None:
    """The digest and what it is of; None where that is not so."""
    stated, body = text[len(_HEAD) : len(_HEAD) + _DIGITS], text[len(_HEAD) + _DIGITS + len(_TAIL) :]
    return (stated.decode(), body) if text == _HEAD + stated + _TAIL + body and stated == _digest(body) else None


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=_DIGITS // 2).hexdigest().encode()


def _lines(manifest: Manifest) -> Iterator[str]:
    yield f'"format": {FORMAT}, "chunk": {CHUNK}, "run": {json.dumps(manifest.run)},'
    yield f'"progress": {json.dumps(asdict(manifest.progress))},'
    yield f'"versions": {json.dumps(dict(manifest.versions))},'
    yield f'"plan": {json.dumps(dict(manifest.plan))},'
    yield '"files": {'
    files = [f"{json.dumps(name)}: {json.dumps(asdict(file))}" for name, file in manifest.files.items()]
    yield ",\n".join(files)
    yield "},"
    yield '"tensors": {'
    yield ",\n".join([f"{json.dumps(key)}: {_entry(entry)}" for key, entry in manifest.tensors.items()])
    yield "}}"
    yield ""


def _entry(entry: Entry) -> str:
    slices = ",\n  ".join([json.dumps(asdict(each)) for each in entry.slices])
    return f'{{"dtype": "{entry.dtype}", "shape": {json.dumps(entry.shape)}, "slices": [\n  {slices}]}}'

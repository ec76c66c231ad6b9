"""Reads manifest.json, and believes nothing: every field has its type, every name and size its bounds.

Nothing else of a checkpoint is opened before all of this holds.
"""

import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

from moec.checkpoint.boxes import Box, sizes, untiled
from moec.checkpoint.damage import Damage
from moec.checkpoint.elements import SIZES
from moec.checkpoint.folders import real_step
from moec.checkpoint.manifest import (
    CHUNK,
    FORMAT,
    LAST_SEED,
    MANIFEST,
    Entry,
    File,
    Manifest,
    Progress,
    Slice,
    split_digest,
)
from moec.checkpoint.plain_json import parse_json, printable

_MOST_BYTES = 1 << 30
"""Of a manifest; that of 400 GB of state has some ten million."""

_FILE_NAME = re.compile(r"rank_[0-9]{3,9}\.safetensors")
_MOST = 1 << 62
_MOST_DIMS = 32
Kind = TypeVar("Kind")


def read_manifest(folder: Path) -> Manifest:
    """That of a step's folder; raises Damage."""
    path = folder / MANIFEST
    try:
        found = path.lstat()
        if not S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
            raise Damage(f"{path} is no file, or one of more bytes than any manifest has")
        text = path.read_bytes()
    except OSError as fault:
        raise Damage(f"{path} cannot be read: {fault.strerror}") from None
    parts = split_digest(text)
    if parts is None:
        raise Damage(f"{path} is not as it was written: its digest is of another text")
    try:
        manifest = parse_manifest(*parts)
    except _Fault as fault:
        raise Damage(f"{path}: {fault}") from None
    named = real_step(folder)[0]
    if named not in (-1, manifest.progress.step):
        raise Damage(
            f"{path} is of step {manifest.progress.step}: the folder was renamed, or the manifest is another's"
        )
    return manifest


def parse_manifest(digest: str, body: bytes) -> Manifest:
    """What the text behind a digest says."""
    try:
        tree = parse_json(b"{" + body)
    except ValueError as fault:
        raise _Fault(f"it is no JSON: {fault}") from None
    record = _dict(tree, "the manifest")
    if _whole(record, "format") != FORMAT or _whole(record, "chunk") != CHUNK:
        raise _Fault("it is of another version of moec")
    files = {_file_name(name): _file(file) for name, file in _dict(record.get("files"), "files").items()}
    tensors = {_key(key): _entry(key, entry, files) for key, entry in _dict(record.get("tensors"), "tensors").items()}
    _check_full(files, tensors)
    versions = {key: _a(value, str, key) for key, value in _dict(record.get("versions"), "versions").items()}
    progress = _progress(_dict(record.get("progress"), "progress"))
    run = _a(record.get("run", ""), str, "run")
    return Manifest(progress, versions, _dict(record.get("plan"), "plan"), files, tensors, digest, run)


class _Fault(Exception):
    """What is wrong, without the file it is wrong in."""


def _progress(record: Mapping[str, object]) -> Progress:
    experts = {
        name: tuple([_within(count, 0, _MOST, name) for count in _a(counts, list, name)])
        for name, counts in _dict(record.get("experts"), "experts").items()
    }
    step, cursor = _whole(record, "step"), _whole(record, "cursor")
    updates, seed = _within(record.get("updates"), 0, step, "updates"), _whole(record, "seed", LAST_SEED)
    return Progress(step, cursor, updates, seed, _a(record.get("data"), str, "data"), experts)


def _file(tree: object) -> File:
    record = _dict(tree, "a file")
    bytes = _whole(record, "bytes")
    return File(bytes, _within(record.get("header"), 8, bytes, "header"), _crc(record, 1))


def _entry(key: str, tree: object, files: Mapping[str, File]) -> Entry:
    record = _dict(tree, key)
    dtype = _a(record.get("dtype"), str, "dtype")
    if dtype not in SIZES:
        raise _Fault(f"{key}: {dtype!a} is no element type")
    shape = tuple([_within(size, 0, _MOST, "shape") for size in _a(record.get("shape"), list, "shape")])
    if len(shape) > _MOST_DIMS:
        raise _Fault(f"{key}: no tensor has {len(shape)} dims")
    slices = tuple([_slice(key, each, dtype, files) for each in _a(record.get("slices"), list, "slices")])
    fault = untiled(shape, [each.box for each in slices])
    if fault:
        raise _Fault(f"{key}: {fault}")
    return Entry(dtype, shape, slices)


def _slice(key: str, tree: object, dtype: str, files: Mapping[str, File]) -> Slice:
    record = _dict(tree, key)
    box = _box(record)
    name = _a(record.get("file"), str, "file")
    if name not in files:
        raise _Fault(f"{key}: {name!a} is not among the files")
    count = nbytes(dtype, box)
    at = _within(record.get("at"), files[name].header, files[name].bytes - count, f"{key}: at")
    return Slice(box, name, at, _crc(record, -(-count // CHUNK)))


def _box(record: Mapping[str, object]) -> Box:
    found = []
    for pair in _a(record.get("box"), list, "box"):
        start, stop = _a(pair, list, "box") if isinstance(pair, list) and len(pair) == 2 else (None, None)
        found.append((_within(start, 0, _MOST, "box"), _within(stop, 1, _MOST, "box")))
    return tuple(found)


def nbytes(dtype: str, box: Box) -> int:
    return prod(sizes(box)) * SIZES[dtype]


def _check_full(files: Mapping[str, File], tensors: Mapping[str, Entry]) -> None:
    """The slices of a file lie one after the other, up to its end."""
    spans: dict[str, list[tuple[int, int, str]]] = {name: [] for name in files}
    for key, entry in tensors.items():
        for each in entry.slices:
            spans[each.file].append((each.at, each.at + nbytes(entry.dtype, each.box), key))
    for name, file in files.items():
        if not spans[name]:
            raise _Fault(f"{name}: no slice is in it")
        end = file.header
        for start, stop, key in sorted(spans[name]):
            if start != end:
                raise _Fault(f"{name}: {key} begins at byte {start}, and not at {end}")
            end = stop
        if end != file.bytes:
            raise _Fault(f"{name}: it has {file.bytes} bytes, and slices up to {end}")


def _file_name(name: str) -> str:
    """One that cannot lead out of the folder."""
    if _FILE_NAME.fullmatch(name) is None:
        raise _Fault(f"{name!a} is no name of a file of slices")
    return name


def _key(name: str) -> str:
    """One that can be shown, and sent to other ranks."""
    if not name.isprintable():
        raise _Fault(f"{name!a} is no name of a tensor")
    return name


def _dict(tree: object, what: str) -> dict[str, object]:
    return {_a(key, str, what): value for key, value in _a(tree, dict, what).items()}


def _whole(record: Mapping[str, object], name: str, most: int = _MOST) -> int:
    return _within(record.get(name), 0, most, name)


def _within(value: object, least: int, most: int, what: str) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _Fault(f"{printable(what)}: {ascii(value)[:40]} is no whole number from {least} to {most}")
    return value


def _crc(record: Mapping[str, object], chunks: int) -> str:
    crc = _a(record.get("crc"), str, "crc")
    if re.fullmatch(f"[0-9a-f]{{{8 * chunks}}}", crc) is None:
        raise _Fault(f"crc: {crc[:40]!a} is not {chunks} check sums")
    return crc


def _a(value: object, kind: type[Kind], what: str) -> Kind:
    if not isinstance(value, kind):
        raise _Fault(f"{printable(what)} is no {kind.__name__}")
    return value

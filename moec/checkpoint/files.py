"""The files of one checkpoint, open for reading: what is read is held against its check sum first."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from zlib import crc32

from moec.checkpoint.boxes import text
from moec.checkpoint.damage import Damage
from moec.checkpoint.folders import strangers
from moec.checkpoint.headers import difference, expected_headers
from moec.checkpoint.manifest import CHUNK, File, Manifest, Slice
from moec.checkpoint.parse_manifest import nbytes, read_manifest


@dataclass(slots=True)
class Files:
    """Every method raises Damage where a file is not what the manifest states."""

    folder: Path
    manifest: Manifest
    bytes_read: int = 0
    _open: dict[str, int] = field(default_factory=dict)
    _headers: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # as they have to be

    @staticmethod
    def open(folder: Path) -> "Files":
        """Read the manifest, and look at what lies beside it."""
        manifest = read_manifest(folder)
        extra = strangers(folder, list(manifest.files))
        if extra:
            raise Damage(f"{folder / extra[0]} is not part of the checkpoint: move it away")
        for name, file in manifest.files.items():
            _check_size(folder / name, file.bytes)
        return Files(folder, manifest)

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for file in self._open.values():
            os.close(file)
        self._open.clear()

    def chunks(self, key: str, each: Slice, first: int, last: int) -> bytearray:
        """The bytes of chunks `first` to `last` of a slice of the tensor `key`, or up to its end."""
        size = nbytes(self.manifest.tensors[key].dtype, each.box)
        content = bytearray(min(last * CHUNK, size) - first * CHUNK)
        self._fill(content, each.file, each.at + first * CHUNK)
        for chunk in range(0, len(content), CHUNK):
            place = 8 * (first + chunk // CHUNK)
            if f"{crc32(memoryview(content)[chunk : chunk + CHUNK]):08x}" != each.crc[place : place + 8]:
                raise Damage(f"{self.folder / each.file}: {key} {text(each.box)} does not have its check sum")
        return content

    def check_slice(self, key: str, each: Slice) -> None:
        """Read all of it, a chunk at a time."""
        for chunk in range(len(each.crc) // 8):
            self.chunks(key, each, chunk, chunk + 1)

    def check_header(self, name: str) -> None:
        self._file(name)

    def _fill(self, content: bytearray, name: str, at: int) -> None:
        done, view = 0, memoryview(content)
        file = self._file(name)
        while done < len(content):
            try:
                count = os.preadv(file, [view[done:]], at + done)
            except OSError as fault:
                raise Damage(f"{self.folder / name} cannot be read: {fault.strerror}") from None
            if count == 0:
                raise Damage(f"{self.folder / name} ends too early")
            done += count
        self.bytes_read += done

    def _file(self, name: str) -> int:
        """Opened once, when its size and its header are checked."""
        if name not in self._open:
            stated = self.manifest.files[name]
            _check_size(self.folder / name, stated.bytes)
            try:
                self._open[name] = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError as fault:
                raise Damage(f"{self.folder / name} cannot be read: {fault.strerror}") from None
            self._check_header(name, stated)
        return self._open[name]

    def _check_header(self, name: str, stated: File) -> None:
        header = bytearray(stated.header)
        self._fill(header, name, 0)
        if f"{crc32(header):08x}" != stated.crc:
            raise Damage(f"{self.folder / name}: its header does not have its check sum")
        self._headers = self._headers or expected_headers(self.manifest)
        fault = difference(bytes(header), self._headers[name])
        if fault:
            raise Damage(f"{self.folder / name}: {fault}")


def _check_size(path: Path, expected: int) -> None:
    try:
        found = path.lstat()
    except OSError as fault:
        raise Damage(f"{path} cannot be read: {fault.strerror}") from None
    if not S_ISREG(found.st_mode):
        raise Damage(f"{path} is no file")
    if found.st_size != expected:
        raise Damage(f"{path} has {found.st_size:,} bytes, and was written with {expected:,}")

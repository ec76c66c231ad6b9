"""The headers of files of slices: what that of a file has to be, by its manifest."""

from collections.abc import Mapping

from moec.checkpoint.boxes import Box, sizes, text, volume
from moec.checkpoint.elements import SIZES
from moec.checkpoint.manifest import Manifest
from moec.checkpoint.plain_json import parse_json


def named(key: str, box: Box) -> str:
    """What a slice is called in its file."""
    return f"{key} {text(box)}"


def expected_headers(manifest: Manifest) -> dict[str, dict[str, object]]:
    """By file: what safetensors says of every slice in it."""
    found: dict[str, dict[str, object]] = {name: {} for name in manifest.files}
    for key, entry in manifest.tensors.items():
        for each in entry.slices:
            start = each.at - manifest.files[each.file].header
            span = [start, start + volume(each.box) * SIZES[entry.dtype]]
            said = {"dtype": entry.dtype, "shape": list(sizes(each.box)), "data_offsets": span}
            found[each.file][named(key, each.box)] = said
    return found


def difference(header: bytes, expected: Mapping[str, object]) -> str:
    """Where the header of a file says something else than its manifest, or ""."""
    if int.from_bytes(header[:8], "little") != len(header) - 8:
        return "its header has another length than the manifest states"
    try:
        found = parse_json(header[8:])
    except ValueError as fault:
        return f"its header is no JSON of safetensors: {fault}"
    if not isinstance(found, dict):
        return "its header is no JSON of safetensors"
    for name in expected:
        if found.get(name) != expected[name]:
            return f"its header and the manifest differ in {name}"
    strange = sorted(found.keys() - expected.keys() - {"__metadata__"})
    return f"its header has {strange[0]!a}, which the manifest has not" if strange else ""

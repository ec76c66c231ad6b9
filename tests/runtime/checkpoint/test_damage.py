"""A damaged checkpoint is refused with the name of what is damaged; an edited manifest too, if its digest is mended."""

import json
import random
import shutil
from hashlib import blake2b

import pytest
from damage_it import damage
from plain import save, trained

from moec.checkpoint.damage import Damage
from moec.checkpoint.files import Files
from moec.checkpoint.verify import faults_of
from moec.runtime.checkpoint.read import Checkpoint
from moec.runtime.checkpoint.restore import restore


@pytest.fixture
def saved(tiny, tmp_path):
    """A job of eight ranks, and its checkpoint."""
    made = tiny(2, 2)
    runs, _ = trained(made, 1)
    return made, save(made, runs, tmp_path / "ck"), runs


def load(runs, folder):
    with Checkpoint.open(folder) as checkpoint:
        for run in runs:
            restore(run, checkpoint)


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.sweep)])
def test_all_damage_is_found(saved, tmp_path, count):
    _, folder, runs = saved
    draw, hit = random.Random(count), []
    load(runs, folder)
    for i in range(count):
        bad = tmp_path / "bad" / folder.name
        shutil.rmtree(bad.parent, ignore_errors=True)
        shutil.copytree(folder, bad)
        kind, name = damage(bad, draw)
        faults = list(faults_of(bad))
        assert faults, (i, kind, name)
        missing = kind == "gone" and name == "manifest.json"
        assert any(name in fault for fault in faults) or kind == "rename", (kind, name, faults)
        with pytest.raises(Damage) as caught:
            load(runs, bad)
        assert str(bad) in str(caught.value) or missing
        hit.append(kind)
    assert len(set(hit)) == 10


def test_a_flipped_bit_names_the_tensor(saved):
    _, folder, runs = saved
    manifest = json.loads((folder / "manifest.json").read_text())
    key, entry = next((key, entry) for key, entry in manifest["tensors"].items() if key == "mean/layers.1.up.weight")
    path = folder / entry["slices"][1]["file"]
    content = bytearray(path.read_bytes())
    content[entry["slices"][1]["at"] + 3] ^= 16
    path.write_bytes(content)
    expected = f"{path}: {key} [4:7, 0:6] does not have its check sum"
    assert list(faults_of(folder)) == [expected]
    with pytest.raises(Damage, match="does not have its check sum"):
        load(runs, folder)


EDITS = {
    "out of the folder": lambda m: _rename(m, "../rank_00000.safetensors"),
    "an absolute path": lambda m: _rename(m, "/etc/passwd"),
    "a gap": lambda m: m["tensors"]["weight/layers.0.up.weight"]["slices"].pop(),
    "an overlap": lambda m: _slices(m)[1].update(box=_slices(m)[0]["box"]),
    "beyond the file": lambda m: _slices(m)[0].update(at=10**15),
    "before its header": lambda m: _slices(m)[0].update(at=0),
    "a negative size": lambda m: m["tensors"]["weight/layers.0.up.weight"].update(shape=[-7, 6]),
    "a huge size": lambda m: m["tensors"]["weight/layers.0.up.weight"].update(shape=[10**30, 6]),
    "another type": lambda m: m["tensors"]["weight/layers.0.up.weight"].update(dtype="F32"),
    "no type": lambda m: m["tensors"]["weight/layers.0.up.weight"].update(dtype="pickle"),
    "a number for a list": lambda m: m["tensors"]["weight/layers.0.up.weight"].update(slices=3),
    "a list for a step": lambda m: m["progress"].update(step=[3]),
    "true for a step": lambda m: m["progress"].update(step=True),
    "no tensors": lambda m: m.pop("tensors"),
    "another version": lambda m: m.update(format=2),
    "no check sum": lambda m: _slices(m)[0].update(crc=""),
    "a file without slices": lambda m: m["files"].update(
        {"rank_00777.safetensors": {"bytes": 8, "header": 8, "crc": "0" * 8}}
    ),
}


def _slices(manifest):
    return manifest["tensors"]["weight/layers.0.up.weight"]["slices"]


def _rename(manifest, name):
    manifest["files"][name] = manifest["files"].pop("rank_00000.safetensors")
    for entry in manifest["tensors"].values():
        for each in entry["slices"]:
            each["file"] = name if each["file"] == "rank_00000.safetensors" else each["file"]


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_manifest_is_checked_before_anything_is_read(saved, edit, monkeypatch):
    _, folder, _ = saved
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["digest"]
    edit(manifest)
    body = json.dumps(manifest)[1:].encode()
    path.write_bytes(b'{"digest": "' + blake2b(body, digest_size=16).hexdigest().encode() + b'",\n' + body)
    monkeypatch.setattr(Files, "_file", None)
    with pytest.raises(Damage, match=str(path)):
        Checkpoint.open(folder)
    assert len(list(faults_of(folder))) == 1


@pytest.mark.parametrize(
    "body", [b"", b"[", b'{"digest": 3}', b"\xff\xfe", b'"a": ' + b"[" * 10**5, b'"a": ' + b"9" * 10**5 + b"}"]
)
def test_no_manifest(saved, body):
    _, folder, _ = saved
    for text in (body, b'{"digest": "' + blake2b(body, digest_size=16).hexdigest().encode() + b'",\n' + body):
        (folder / "manifest.json").write_bytes(text)
        with pytest.raises(Damage):
            Checkpoint.open(folder)

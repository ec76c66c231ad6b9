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
from moec.checkpoint.verify import faults_of, notes_on
from moec.runtime.checkpoint.read import Checkpoint
from moec.runtime.checkpoint.restore import check_model, restore


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
    "another step": lambda m: m["progress"].update(step=99),
    "updates beyond the step": lambda m: m["progress"].update(updates=99),
    "a seed that is none": lambda m: m["progress"].update(seed=1 << 64),
    "a name for a terminal": lambda m: _rename_tensor(m, "weight/\x1b[2J"),
    "a name that is no text": lambda m: _rename_tensor(m, "weight/\ud800"),
    "a hundred dims": lambda m: m["tensors"]["weight/layers.0.up.weight"].update(shape=[1] * 100),
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


def _rename_tensor(manifest, name):
    manifest["tensors"][name] = manifest["tensors"].pop("weight/layers.0.up.weight")


def rewrite(path, edit):
    """The manifest with something else in it, and the digest of that."""
    manifest = json.loads(path.read_text())
    del manifest["digest"]
    edit(manifest)
    write(path, json.dumps(manifest)[1:].encode())


def write(path, body):
    path.write_bytes(b'{"digest": "' + blake2b(body, digest_size=16).hexdigest().encode() + b'",\n' + body)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_manifest_is_checked_before_anything_is_read(saved, edit, monkeypatch):
    _, folder, _ = saved
    path = folder / "manifest.json"
    rewrite(path, edit)
    monkeypatch.setattr(Files, "_file", None)
    with pytest.raises(Damage, match=str(path)) as caught:
        Checkpoint.open(folder)
    assert str(caught.value).isprintable()
    assert len(list(faults_of(folder))) == 1


def _swap(manifest):
    tensors = manifest["tensors"]
    for key in [key for key in tensors if key.startswith("mean/")]:
        square = "square/" + key[5:]
        tensors[key], tensors[square] = tensors[square], tensors[key]


def _as_integers(manifest):
    for entry in manifest["tensors"].values():
        entry["dtype"] = "I64"


@pytest.mark.parametrize("edit", [_swap, _as_integers])
def test_what_the_files_say_of_themselves_counts_too(saved, edit):
    _, folder, runs = saved
    rewrite(folder / "manifest.json", edit)
    faults = list(faults_of(folder))
    assert len(faults) == len(list(folder.glob("rank_*")))
    assert all("its header and the manifest differ in " in fault for fault in faults)
    with pytest.raises(Damage, match="its header and the manifest differ in "):
        load(runs, folder)


def test_a_key_that_is_there_twice(saved):
    _, folder, _ = saved
    path = folder / "manifest.json"
    body = path.read_bytes().partition(b'",\n')[2]
    write(path, body.replace(b'"seed": 7', b'"seed": 7, "seed": 8', 1))
    with pytest.raises(Damage, match="'seed' is there twice"):
        Checkpoint.open(folder)


def test_a_folder_of_another_step(saved):
    _, folder, _ = saved
    other = folder.rename(folder.with_name("step_00000099"))
    with pytest.raises(Damage, match=r"step_00000099/manifest\.json is of step 1: the folder was renamed"):
        Checkpoint.open(other)
    assert len(list(faults_of(other))) == 1


def test_experts_are_those_of_the_model(saved):
    made, folder, _ = saved
    rewrite(folder / "manifest.json", lambda m: m["progress"].update(experts={"layers.0.gate": [1, 2]}))
    with Checkpoint.open(folder) as checkpoint, pytest.raises(Damage) as caught:
        check_model(made.job, checkpoint)
    assert str(caught.value).endswith("of other experts: layers.0.gate has counts of 2, and the model 0")


def test_hidden_files_are_passed_over(saved):
    _, folder, runs = saved
    (folder / ".DS_Store").write_text("x")
    load(runs, folder)
    assert list(faults_of(folder)) == []
    (note,) = notes_on(folder)
    assert note == f"{folder}/.DS_Store is not part of the checkpoint, and is passed over: it can be removed"


@pytest.mark.parametrize(
    "body", [b"", b"[", b'{"digest": 3}', b"\xff\xfe", b'"a": ' + b"[" * 10**5, b'"a": ' + b"9" * 10**5 + b"}"]
)
def test_no_manifest(saved, body):
    _, folder, _ = saved
    for text in (body, b'{"digest": "' + blake2b(body, digest_size=16).hexdigest().encode() + b'",\n' + body):
        (folder / "manifest.json").write_bytes(text)
        with pytest.raises(Damage):
            Checkpoint.open(folder)

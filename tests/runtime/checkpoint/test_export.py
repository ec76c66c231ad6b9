"""Weights under the module's own names: written, read by others, and started from."""

import json
from dataclasses import replace

import pytest
import torch
from plain import read_plainly, save, trained
from safetensors.torch import load_file, save_file

from moec.commands.outputs import WEIGHTS, check_output
from moec.runtime.checkpoint.export import export
from moec.runtime.checkpoint.read import Checkpoint
from moec.runtime.given_files import fingerprint
from moec.runtime.given_weights import GivenWeights
from moec.runtime.initial import Initial
from moec.runtime.module_values import ModelFault


@pytest.fixture
def saved(tiny, tmp_path):
    made = tiny(3, 2, "bf16")
    runs, _ = trained(made, 1)
    return made, save(made, runs, tmp_path / "ck")


def test_one_file(saved, tmp_path):
    made, folder = saved
    with Checkpoint.open(folder) as checkpoint:
        assert export(checkpoint, tmp_path / "m.safetensors", None, 10**9) == [tmp_path / "m.safetensors"]
        assert export(checkpoint, tmp_path / "half.safetensors", torch.bfloat16, 10**9)
    check_output(tmp_path / "m.safetensors", WEIGHTS)
    found, half = load_file(tmp_path / "m.safetensors"), load_file(tmp_path / "half.safetensors")
    state = read_plainly(folder).tensors
    assert list(found) and found.keys() == half.keys() == made.job.weights.keys()
    for name, value in found.items():
        assert value.dtype is torch.float32 and value.equal(torch.from_numpy(state[f"weight/{name}"]))
        assert half[name].equal(value.bfloat16())


def test_several_files_with_an_index(saved, tmp_path):
    made, folder = saved
    (tmp_path / "out").mkdir()
    with Checkpoint.open(folder) as checkpoint:
        written = export(checkpoint, tmp_path / "out" / "model.safetensors", None, 400)
    assert [path.name for path in written] == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [path.name for path in written]
    index = json.loads(written[-1].read_text())
    found = {}
    for path in written[:-1]:
        part = load_file(path)
        assert {name for name, file in index["weight_map"].items() if file == path.name} == part.keys()
        found |= part
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in found.values())
    assert found.keys() == made.job.weights.keys()
    values = GivenWeights.of(tmp_path / "out", made.job, Initial(7))
    where = (slice(2, 5), slice(1, 4))
    given = values("layers.0.up.weight", (7, 6), "normal 0.3", where)
    assert given.dtype is torch.float64 and given.equal(found["layers.0.up.weight"][where].double())


def test_what_a_file_lacks_is_said_at_once(saved, tmp_path):
    made, _ = saved
    weights = {name: torch.zeros(weight.shape) for name, weight in made.job.weights.items()}
    del weights["layers.0.up.weight"]
    weights |= {"stranger": torch.zeros(2), "embed.weight": torch.zeros(12, 6)}
    save_file(weights, tmp_path / "m.safetensors")
    with pytest.raises(ModelFault) as caught:
        GivenWeights.of(tmp_path / "m.safetensors", made.job, Initial(7))
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'm.safetensors'} does not have the weights of tiny",
        "  missing: layers.0.up.weight",
        "  not of the model: stranger",
        "  of another shape: embed.weight is [12, 6], and the model's [11, 6]",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.safetensors", None, "m.safetensors is not there"),
        ("m.safetensors", b"\x00" * 20, "m.safetensors cannot be read: "),
        ("in/notes", b"x", "holds no .safetensors file"),
        ("in/model.safetensors.index.json", b"[1]", "is no index of safetensors files"),
        ("in/model.safetensors.index.json", b'{"weight_map": {"w": "../m.safetensors"}}', "which is no file beside it"),
    ],
)
def test_no_weights(saved, tmp_path, name, content, said):
    made, _ = saved
    path = tmp_path / name
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    with pytest.raises(ModelFault, match=said):
        GivenWeights.of(tmp_path / name.split("/")[0], made.job, Initial(7))


def test_a_fingerprint_is_of_the_files(saved, tmp_path):
    _, folder = saved
    with Checkpoint.open(folder) as checkpoint:
        (path,) = export(checkpoint, tmp_path / "m.safetensors", None, 10**9)
    before = fingerprint(path)
    assert before.startswith(f"m.safetensors {path.stat().st_size} ")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert fingerprint(path) != before


def test_a_fingerprint_of_a_large_file_samples_it(tmp_path):
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.truncate(65 << 20)
    before = fingerprint(path)
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert fingerprint(path) != before


def test_an_export_leaves_no_older_form(saved, tmp_path):
    made, folder = saved
    output = tmp_path / "out" / "model.safetensors"
    output.parent.mkdir()
    with Checkpoint.open(folder) as checkpoint:
        for most in (400, 10**9, 700, 400, 10**9):
            written = export(checkpoint, output, None, most)
            assert sorted(output.parent.iterdir()) == sorted(written)
            GivenWeights.of(output.parent, made.job, Initial(7))


def test_it_must_be_plain_which_file_counts(saved, tmp_path):
    made, folder = saved
    (tmp_path / "out").mkdir()
    with Checkpoint.open(folder) as checkpoint:
        *parts, index = export(checkpoint, tmp_path / "out" / "model.safetensors", None, 400)
        (whole,) = export(checkpoint, tmp_path / "out" / "whole.safetensors", None, 10**9)

    def refused():
        with pytest.raises(ModelFault) as caught:
            GivenWeights.of(tmp_path / "out", made.job, Initial(7))
        return str(caught.value)

    assert "in two files, model-00001-of-00003.safetensors and whole.safetensors: leave one there" in refused()
    whole.rename(tmp_path / "out" / "._whole.safetensors")  # hidden
    GivenWeights.of(tmp_path / "out", made.job, Initial(7))
    tree = json.loads(index.read_text())
    name = next(iter(tree["weight_map"]))
    tree["weight_map"][name] = parts[-1].name
    index.write_text(json.dumps(tree))
    assert f"it says that '{name}' is in {parts[-1].name}, and it is in {parts[0].name}" in refused()
    del tree["weight_map"][name]
    index.write_text(json.dumps(tree))
    assert f"it says that '{name}' is in no file" in refused()


def given(made, tmp_path, **changes):
    weights = {name: torch.ones(weight.shape) for name, weight in made.job.weights.items()}
    save_file(weights | changes, tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_what_no_program_reads_is_passed_over(saved, tmp_path):
    made, _ = saved
    path = given(made, tmp_path, count=torch.tensor(7))
    with pytest.raises(ModelFault, match="not of the model: count"):
        GivenWeights.of(path, made.job, Initial(7))
    GivenWeights.of(path, made.job, Initial(7), {"count"})


def test_whole_numbers_are_no_weights(saved, tmp_path):
    made, _ = saved
    path = given(made, tmp_path, **{"embed.weight": torch.ones(11, 6, dtype=torch.int32)})
    with pytest.raises(ModelFault, match=r"not of floating point: embed\.weight is I32"):
        GivenWeights.of(path, made.job, Initial(7))


def test_two_names_of_a_weight_agree(saved, tmp_path):
    made, _ = saved
    stated = made.job.weights
    job = replace(made.job, weights=stated | {"embed.weight": replace(stated["embed.weight"], also=("head.weight",))})
    GivenWeights.of(given(made, tmp_path, **{"head.weight": torch.ones(11, 6)}), job, Initial(7))
    path = given(made, tmp_path, **{"head.weight": torch.ones(11, 6).index_fill(0, torch.tensor([10]), 2.0)})
    with pytest.raises(ModelFault, match=r"not the same under both of its names: embed\.weight and head\.weight"):
        GivenWeights.of(path, job, Initial(7))

"""Samples: the same by number for everyone, and faults in one line."""

from pathlib import Path

import pytest
import torch

from moec.runtime.data import DataFault, Dataset, Synthetic, Text, open_source
from moec.runtime.job import Input, Job
from moec.runtime.optimizer import Training

LANGUAGE = (Input("tokens", "tokens", (8,), 300), Input("labels", "labels", (8,), 300))
PICTURES = (Input("image", "float", (3, 4, 4), None), Input("label", "int", (), 10))


def job(inputs, data=None):
    return Job("tiny", 1, 4, 1, Training(0.1, 0.9, 0.9, 1e-8, 0.0, None, "fp32", 0), inputs, "sum", data, "")


def test_labels_are_one_byte_on(tmp_path):
    text = bytes(range(200))
    (tmp_path / "a.txt").write_bytes(text)
    source = open_source(job(LANGUAGE), str(tmp_path / "a.txt"), 0)
    starts = set()
    for i in range(50):
        sample = source.sample(i)
        start = int(sample["tokens"][0])
        assert sample["tokens"].tolist() == list(text[start : start + 8])
        assert sample["labels"].tolist() == list(text[start + 1 : start + 9])
        assert sample["tokens"].dtype is torch.int64
        starts.add(start)
    assert len(starts) > 30


def test_a_shortest_text_has_one_sample(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(9)))
    assert Text.read([tmp_path / "a"], LANGUAGE, 0).sample(3)["labels"].tolist() == list(range(1, 9))
    (tmp_path / "a").write_bytes(bytes(8))
    with pytest.raises(DataFault, match="the text has 8 bytes, and one sample takes 9"):
        Text.read([tmp_path / "a"], LANGUAGE, 0)


def test_seed_and_number_decide(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(256)) * 9)
    samples = [
        Text.read([tmp_path / "a"], LANGUAGE, seed).sample(i)["tokens"][0].item() for seed in (0, 1) for i in (0, 1)
    ]
    assert len(set(samples)) == 4
    again = Text.read([tmp_path / "a"], LANGUAGE, 1)
    assert again.sample(1)["tokens"][0].item() == samples[3]


def test_a_small_vocabulary_folds_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"\xff" * 20)
    inputs = (Input("tokens", "tokens", (8,), 7), Input("labels", "labels", (8,), 7))
    assert set(Text.read([tmp_path / "a"], inputs, 0).sample(0)["tokens"].tolist()) == {255 % 7}


def test_a_folder_is_its_files_by_name(tmp_path):
    (tmp_path / "b").mkdir()
    for name, content in {"b/x": "2", "a.txt": "1", "c": "3", ".hidden": "-", "b/__pycache__/y": "-"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content * 5)
    source = open_source(job(LANGUAGE), str(tmp_path), 0)
    assert isinstance(source, Text) and source.text.tobytes() == b"11111\n22222\n33333"


def test_the_default_is_pythons_own_library():
    source = open_source(job(LANGUAGE), None, 0)
    assert isinstance(source, Text) and len(source.text) > 2_000_000
    assert b"def __init__" in source.text.tobytes()


def test_made_up_samples():
    source = open_source(job(PICTURES), None, 0)
    assert isinstance(source, Synthetic)
    first, second = source.sample(0), source.sample(1)
    assert first["image"].shape == (3, 4, 4) and first["image"].equal(source.sample(0)["image"])
    assert not first["image"].equal(second["image"]) and first["label"].shape == ()
    labels = {source.sample(i)["label"].item() for i in range(100)}
    assert labels == set(range(10))


def test_a_dataset_of_the_user(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_pictures.py").write_text(
        "import torch\n"
        "pairs = [(torch.full((3, 4, 4), float(i)), i) for i in range(5)]\n"
        "def named():\n    return [{'label': i, 'image': torch.zeros(3, 4, 4)} for i in range(5)]\n"
    )
    source = open_source(job(PICTURES, "my_pictures:pairs"), None, 0)
    assert isinstance(source, Dataset) and source.sample(7)["image"][0, 0, 0] == 2.0
    assert Dataset.load("my_pictures:named", PICTURES).sample(4)["label"] == 4
    with pytest.raises(DataFault, match="data my_pictures:nothing: module my_pictures has no nothing"):
        Dataset.load("my_pictures:nothing", PICTURES)
    with pytest.raises(DataFault, match="data no_such_module:x: No module named 'no_such_module'"):
        Dataset.load("no_such_module:x", PICTURES)


def test_faults_of_the_path():
    with pytest.raises(DataFault, match="no such file or folder: /no/where"):
        open_source(job(LANGUAGE), "/no/where", 0)
    with pytest.raises(DataFault, match="tiny has no token inputs, and reads no text"):
        open_source(job(PICTURES), str(Path(__file__)), 0)

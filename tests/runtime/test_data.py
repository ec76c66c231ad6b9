"""Samples: the same by number for everyone, and faults in one line."""

from pathlib import Path

import pytest
import torch

from moec.runtime.data import (
    DataFault,
    Documents,
    Sequences,
    Shuffled,
    Synthetic,
    Text,
    Wanted,
    open_data,
    open_source,
    read_text,
)
from moec.runtime.job import Input, Job

LANGUAGE = (Input("tokens", "tokens", (8,), 300), Input("labels", "labels", (8,), 300))
PICTURES = (Input("image", "float", (3, 4, 4), None), Input("label", "int", (), 10))


def job(inputs, data=None):
    return Job("tiny", 1, 4, 1, None, inputs, "sum", data)


def test_labels_are_one_byte_on_and_sequences_do_not_overlap(tmp_path):
    text = bytes(range(203))
    (tmp_path / "a.txt").write_bytes(text)
    source = open_source(job(LANGUAGE), str(tmp_path / "a.txt"), 0)
    starts = []
    for i in range(25):
        sample = source.sample(i)
        starts.append(int(sample["tokens"][0]))
        assert sample["tokens"].tolist() == list(text[starts[-1] : starts[-1] + 8])
        assert sample["labels"].tolist() == list(text[starts[-1] + 1 : starts[-1] + 9])
        assert sample["tokens"].dtype is sample["labels"].dtype is torch.int64
    assert sorted(starts) == list(range(0, 200, 8)) != starts


def test_a_shortest_text_has_one_sample(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(9)))
    assert read_text([tmp_path / "a"], LANGUAGE, 0).sample(3)["labels"].tolist() == list(range(1, 9))
    (tmp_path / "a").write_bytes(bytes(8))
    with pytest.raises(DataFault, match="the data has 8 ids, and one sample takes 9"):
        read_text([tmp_path / "a"], LANGUAGE, 0)


def test_seed_and_number_decide(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(256)) * 9)
    samples = [
        read_text([tmp_path / "a"], LANGUAGE, seed).sample(i)["tokens"].tolist() for seed in (0, 1) for i in range(9)
    ]
    assert samples[:9] != samples[9:]
    assert read_text([tmp_path / "a"], LANGUAGE, 1).sample(1)["tokens"].tolist() == samples[10]


def test_a_small_vocabulary_folds_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"\xff" * 20)
    inputs = (Input("tokens", "tokens", (8,), 7), Input("labels", "labels", (8,), 7))
    assert set(read_text([tmp_path / "a"], inputs, 0).sample(0)["tokens"].tolist()) == {255 % 7}


def test_a_folder_is_its_files_by_name(tmp_path):
    (tmp_path / "b").mkdir()
    for name, letter in {"b/x": "2", "a.txt": "1", "c": "3", ".hidden": "-", "b/__pycache__/y": "-"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(letter * 5)
    assert bytes(content(open_source(job(LANGUAGE), str(tmp_path), 0)).content) == b"11111\n22222\n33333"


def test_the_default_is_pythons_own_library():
    text = content(open_source(job(LANGUAGE), None, 0))
    assert len(text) > 2_000_000 and b"def __init__" in text.content.tobytes()


def test_made_up_samples():
    source = open_source(job(PICTURES), None, 0)
    assert isinstance(source, Synthetic)
    first, second = source.sample(0), source.sample(1)
    assert first["image"].shape == (3, 4, 4) and first["image"].equal(source.sample(0)["image"])
    assert not first["image"].equal(second["image"]) and first["label"].shape == ()
    labels = {source.sample(i)["label"].item() for i in range(100)}
    assert labels == set(range(10))


def test_faults_of_the_path():
    with pytest.raises(DataFault, match="no such file or folder: /no/where"):
        open_source(job(LANGUAGE), "/no/where", 0)
    with pytest.raises(DataFault, match="a cannot be read: File name too long"):
        open_source(job(LANGUAGE), 300 * "a", 0)
    with pytest.raises(DataFault, match="/dev/null is neither a file nor a folder"):
        open_source(job(LANGUAGE), "/dev/null", 0)
    with pytest.raises(DataFault, match="tiny has no token inputs, and reads no text"):
        open_source(job(PICTURES), str(Path(__file__)), 0)


def test_the_last_items_are_held_out(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(201)))
    data = open_data(job(LANGUAGE), Wanted(str(tmp_path / "a"), held_out=0.3), 0)
    trained = sorted(int(data.training.sample(n)["tokens"][0]) for n in range(17))
    assert trained == list(range(0, 136, 8))
    assert [int(data.held_out.sample(n)["tokens"][0]) for n in range(8)] == list(range(136, 200, 8))
    assert int(data.training.sample(17)["tokens"][0]) in trained  # the next epoch


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (0.1, "--held-out 0.1 keeps 2 of 25 samples out of training, and an evaluation reads batches of 4: "
              "--held-out 0.16"),
        (1.5, "--held-out 1.5: a share lies between 0 and 1, as 0.01"),
        (-0.1, "--held-out -0.1: a share lies between 0 and 1, as 0.01"),
        (0.99, "--held-out 0.99 keeps 25 of 25 samples out of training, and an evaluation reads batches of 4: "
               "--held-out 0.16"),
    ],
)  # fmt: skip
def test_a_held_out_share_that_does_not_do(tmp_path, share, message):
    (tmp_path / "a").write_bytes(bytes(range(201)))
    with pytest.raises(DataFault) as caught:
        open_data(job(LANGUAGE), Wanted(str(tmp_path / "a"), held_out=share), 0)
    assert str(caught.value) == message


def test_the_share_that_is_advised_does(tmp_path):
    for size in (41, 100, 345, 1003):
        (tmp_path / "a").write_bytes(bytes(size))
        with pytest.raises(DataFault) as caught:
            open_data(job(LANGUAGE), Wanted(str(tmp_path / "a"), held_out=0.001), 0)
        advised = float(str(caught.value).rpartition(" ")[2])
        assert len(open_data(job(LANGUAGE), Wanted(str(tmp_path / "a"), held_out=advised), 0).held_out) >= 4


def test_what_cannot_be_held_out(tmp_path):
    with pytest.raises(DataFault, match="--held-out: the data of tiny is made up, so that no sample comes twice"):
        open_data(job(PICTURES), Wanted(held_out=0.1), 0)
    (tmp_path / "a").write_bytes(bytes(20))
    with pytest.raises(DataFault, match="batches of 4: more data, or a smaller batch"):
        open_data(job(LANGUAGE), Wanted(str(tmp_path / "a"), held_out=0.5), 0)


def test_fingerprints_differ_where_samples_do(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(200)))
    (tmp_path / "b").write_bytes(bytes(range(199, -1, -1)))
    path = str(tmp_path / "a")
    wanted = [Wanted(path), Wanted(str(tmp_path / "b")), Wanted(path, held_out=0.2), Wanted(path, held_out=0.3)]
    wanted += [
        Wanted(path, Documents(*options)) for options in [(3,), (4,), (3, 5), (None, 5), (3, None, True), (3, 5, True)]
    ]
    said = [open_data(job(LANGUAGE), each, seed).training.fingerprint for each in wanted for seed in (0, 1)]
    assert len(set(said)) == len(said)
    assert said[-1] == open_data(job(LANGUAGE), wanted[-1], 1).training.fingerprint
    assert said[-1].endswith(", sequences of 8, separator 3, padding 5, documents apart, order 1")


def content(source):
    """The stream of a source of text."""
    assert isinstance(source, Shuffled) and isinstance(source.items, Sequences)
    assert isinstance(source.items.stream, Text)
    return source.items.stream

"""Samples of the user's own: read in the order of the seed, and each fault said in one line with the sample."""

import pytest
import torch

from moec.runtime.data import DataFault, Dataset, SampleFault, Shuffled
from moec.runtime.job import Input

INPUTS = (Input("image", "float", (3, 4, 4), None), Input("label", "int", (), 10))


class Given:
    """One sample, whatever it is."""

    def __init__(self, sample):
        self.sample = sample

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.sample(index) if callable(self.sample) else self.sample


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken.py").write_text("if True\n")
    (tmp_path / "my_pictures.py").write_text(
        "import torch\n"
        "pairs = [(torch.full((3, 4, 4), float(i)), i) for i in range(5)]\n"
        "def named():\n    return [{'label': i, 'image': torch.zeros(3, 4, 4)} for i in range(5)]\n"
        "empty = []\n"
        "def ends():\n    raise SystemExit(3)\n"
        "number = 3\n"
    )


def test_each_once_an_epoch(module):
    source = Shuffled(Dataset.load("my_pictures:pairs", INPUTS), 0)
    images = [source.sample(n)["image"][0, 0, 0].item() for n in range(10)]
    labels = [source.sample(n)["label"].item() for n in range(10)]
    assert images == labels and sorted(images[:5]) == sorted(images[5:]) == [0, 1, 2, 3, 4]
    assert Dataset.load("my_pictures:named", INPUTS).sample(4)["label"] == 4


def test_what_cannot_be_loaded(module):
    for target, message in {
        "my_pictures:nothing": "data my_pictures:nothing: module my_pictures has no nothing",
        "no_such_module:x": "data no_such_module:x: No module named 'no_such_module'",
        "my_pictures:empty": "data my_pictures:empty: it has no samples",
        "my_pictures:ends": "data my_pictures:ends: SystemExit: 3, at my_pictures.py:7: raise SystemExit(3)",
        "my_pictures:number": "data my_pictures:number: TypeError: 'int' object is not callable",
        "broken:data": "data broken:data: SyntaxError: expected ':' (broken.py, line 1)",
    }.items():
        with pytest.raises(DataFault) as caught:
            Dataset.load(target, INPUTS)
        assert str(caught.value) == message


IMAGE = torch.zeros(3, 4, 4)
FAULTS = {
    "has no label: the plan's inputs are image, label, and it has image, class": {"image": IMAGE, "class": 1},
    "has no image: the plan's inputs are image, label, and it has nothing": {},
    " has 3 values, and the plan 2 inputs: image, label": (IMAGE, 1, 2),
    " is of type int: give a mapping, or a tuple, of image, label": 3,
    ": image has shape [4, 4], and the plan says [3, 4, 4]": (IMAGE[0], 1),
    ": image is uint8, and the plan says float: x.float() makes it one": (IMAGE.byte(), 1),
    ": image is of type str, of which no tensor can be made": ("cat.png", 1),
    ": label is float32, and the plan says int: x.long() makes it one": (IMAGE, 1.5),
    ": label has 10, and the plan says ints below 10": (IMAGE, 10),
    ": label has -1, and the plan says ints below 10": (IMAGE, -1),
}


@pytest.mark.parametrize("message", FAULTS)
def test_a_sample_that_the_plan_does_not_describe(message):
    with pytest.raises(SampleFault) as caught:
        Dataset("mine:data", Given(FAULTS[message]), INPUTS, 2).sample(1)
    assert str(caught.value) == f"sample 1 of mine:data{'' if message[0] in ': ' else ' '}{message}"


def test_ints_of_any_width_and_ignored_ones():
    for label in (torch.tensor(3, dtype=torch.int16), 3, True, -100):
        found = Dataset("mine:data", Given((IMAGE, label)), INPUTS, 2).sample(0)["label"]
        assert found.dtype is torch.int64 and found == int(label)


def test_an_exception_names_the_sample_and_the_users_line():
    def fails(index):
        return torch.zeros(2).view(index + 5)  # here

    with pytest.raises(SampleFault) as caught:
        Dataset("mine:data", Given(fails), INPUTS, 2).sample(1)
    message = str(caught.value)
    assert message.startswith("sample 1 of mine:data: RuntimeError: ") and "\n" not in message
    assert message.endswith("return torch.zeros(2).view(index + 5)  # here") and ", at test_dataset.py:" in message


class Mute(Exception):
    """Cannot say what it is."""

    def __str__(self):
        raise RuntimeError


ENDS = {
    "SystemExit: 3": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "ValueError: boom second line": ValueError("boom\n\n  second line\n"),
    "Mute": Mute(),
}


@pytest.mark.parametrize("words", ENDS)
def test_whatever_is_raised_is_told_in_one_line(words):
    def fails(index):
        raise ENDS[words]

    with pytest.raises(SampleFault) as caught:
        Dataset("mine:data", Given(fails), INPUTS, 2).sample(1)
    assert str(caught.value).startswith(f"sample 1 of mine:data: {words}, at test_dataset.py:")
    assert str(caught.value).endswith(": raise ENDS[words]")


def test_a_sample_that_fails_as_it_is_looked_at():
    class Lazy(dict):
        def __getitem__(self, name):
            raise SystemExit(name)

    class Array:
        @property
        def __array_interface__(self):
            raise OSError("gone\naway")

    for sample, words in (
        (Lazy(image=1, label=2), "sample 1 of mine:data: SystemExit: image, at test_dataset.py:"),
        ({"image\nx": 1}, "sample 1 of mine:data has no image: the plan's inputs are image, label, and it has image x"),
        ((Array(), 1), "sample 1 of mine:data: image is of type Array, of which no tensor can be made"),
    ):
        with pytest.raises(SampleFault) as caught:
            Dataset("mine:data", Given(sample), INPUTS, 2).sample(1)
        assert str(caught.value).startswith(words) and "\n" not in str(caught.value)

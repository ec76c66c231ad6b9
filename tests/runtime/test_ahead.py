"""Reading ahead gives what reading gives, whatever is asked for, and its faults where they belong."""

import threading
import time

import pytest
import torch

from moec.runtime.data import Ahead, MicroBatches, SampleFault
from moec.runtime.job import Input, Job
from moec.runtime.optimizer import Training
from moec.runtime.place import Place

INPUTS = (Input("image", "float", (4, 6), None), Input("tokens", "int", (6,), 100))
SPLITS = {"image": (("dp",), (), ("tp",)), "tokens": (("dp",), ()), "tokens@2": (("dp",), ("tp",))}


class Numbered:
    """Samples made of their number; those from `bad` on cannot be read."""

    fingerprint = "numbered"

    def __init__(self, bad=10**9):
        self.bad, self.read = bad, []

    def sample(self, index):
        self.read.append(index)
        if index >= self.bad:
            raise SampleFault(f"sample {index} is damaged")
        return {"image": torch.full((4, 6), float(index)) + torch.arange(6), "tokens": torch.arange(6) + index}


def micro_batches(source):
    training = object.__new__(Training)
    object.__setattr__(training, "precision", "bf16")
    job = Job("tiny", 4, 16, 4, training, INPUTS, "sum", None)
    place = Place(3, {"dp": 2, "tp": 2}, {"dp": 1, "tp": 1}, {"dp": (1, 3), "tp": (2, 3)}, None, None)
    return MicroBatches.of(source, job, place, SPLITS)


def test_a_rank_reads_its_slices_of_its_samples_alone():
    source = Numbered()
    inputs = micro_batches(source).read(8)
    assert source.read == [10, 11]
    assert inputs["tokens"].tolist() == [list(range(10, 16)), list(range(11, 17))]
    assert inputs["tokens@2"].tolist() == [[13, 14, 15], [14, 15, 16]]
    expected = torch.tensor([[13.0, 14, 15], [14, 15, 16]])[:, None].expand(2, 4, 3)
    assert inputs["image"].equal(expected.bfloat16()) and all(x.is_contiguous() for x in inputs.values())


@pytest.mark.parametrize("depth", [1, 4])
def test_the_same_in_a_row_after_a_jump_and_again(depth):
    plain, ahead = micro_batches(Numbered()), Ahead(micro_batches(Numbered()), depth, pin=False)
    for first in [0, 4, 8, 12, 16, 400, 404, 8, 8, 12, 0, 4]:
        expected, found = plain.read(first), ahead.read(first)
        assert found.keys() == expected.keys() and all(x.equal(expected[name]) for name, x in found.items())
    ahead.close()


def test_no_more_than_the_depth_is_read_early():
    source = Numbered()
    ahead = Ahead(micro_batches(source), 3, pin=False)
    ahead.read(0)
    wait_for(lambda: len(source.read) == 8)
    time.sleep(0.05)  # for what should not come
    assert source.read == [2, 3, 6, 7, 10, 11, 14, 15]
    ahead.read(4)
    wait_for(lambda: len(source.read) == 10)
    ahead.close()


def test_a_fault_is_raised_where_its_micro_batch_is_asked_for():
    ahead = Ahead(micro_batches(Numbered(bad=12)), 8, pin=False)
    assert ahead.read(0)["tokens"][0, 0] == 2
    ahead.read(4), ahead.read(8)
    with pytest.raises(SampleFault, match="sample 14 is damaged"):
        ahead.read(12)
    assert ahead.read(0)["tokens"][0, 0] == 2
    ahead.close()


class Ending(Numbered):
    """Ends whoever reads it."""

    def sample(self, index):
        raise SystemExit(3)


def test_what_would_end_the_thread_is_raised_too():
    ahead = Ahead(micro_batches(Ending()), 2, pin=False)
    for _ in range(2):
        with pytest.raises(SystemExit):
            ahead.read(0)
    ahead.close()


def test_the_thread_ends_when_it_is_told_to_and_with_the_process():
    ahead = Ahead(micro_batches(Numbered()), 2, pin=False)
    ahead.read(0)
    mine = [thread for thread in threading.enumerate() if thread.name == "moec-data"]
    assert mine and all(thread.daemon for thread in mine)
    ahead.close()
    for thread in mine:
        thread.join(10)
    assert not any(thread.is_alive() for thread in mine)


def wait_for(true):
    for _ in range(1000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come")

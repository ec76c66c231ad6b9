"""Which samples which rank reads: step n the same on every mesh and after a resume, each item once an epoch."""

from dataclasses import dataclass, field

import pytest
import torch

from moec.runtime.communicator import current
from moec.runtime.data import Shuffled

BATCH, ACCUMULATE, VOCAB, SEQ, STEPS = 12, 2, 11, 5, 5
SIZE = BATCH // ACCUMULATE
MESHES = [(1, 1), (2, 1), (3, 2), (6, 1)]


@dataclass
class Numbered:
    """Items whose tokens, and whose labels, are the digits of their number; notes which rank asks for which."""

    count: int
    asked: dict[int, list[int]] = field(default_factory=dict)

    fingerprint = "numbered"

    def __len__(self):
        return self.count

    def sample(self, index):
        self.asked.setdefault(current().rank, []).append(index)
        digits = torch.tensor([index // VOCAB**place % VOCAB for place in range(SEQ)])
        return {"tokens": digits, "labels": digits}


def read(made, items, first, last):
    """By step, micro-batch, stage, tp and dp: the numbers in what the rank's program was given, in order."""
    found = {}

    def program(rank, run):
        run.step, run.cursor = first, first * BATCH
        inputs = run.inputs

        def noted(i):
            given = inputs(i)
            (x,) = given.values()
            at = run.place.coordinates
            numbers = [sum(int(digit) * VOCAB**place for place, digit in enumerate(row)) for row in x]
            found[run.step, i, at["pp"], at["tp"], at["dp"]] = numbers
            return given

        run.inputs = noted
        while run.step < last:
            rank.step(run)

    made.simulate(program, Shuffled(items, 5))
    return found


def whole(found, made, first, last):
    """Step by step the numbers of all dp ranks, in order; each stage and each tp rank has the same."""
    steps = []
    for step in range(first, last):
        lanes = [
            [n for i in range(ACCUMULATE) for dp in range(made.dp) for n in found[step, i, stage, tp, dp]]
            for stage in range(2)
            for tp in range(made.tp)
        ]
        assert all(lane == lanes[0] for lane in lanes)
        steps.append(lanes[0])
    return steps


@pytest.mark.parametrize("count", [30, 12, 5, 1], ids=lambda count: f"{count} items")
def test_on_every_mesh_and_once_an_epoch(tiny, count):
    seen = []
    for dp, tp in MESHES:
        made, items = tiny(dp, tp), Numbered(count)
        steps = whole(read(made, items, 0, STEPS), made, 0, STEPS)
        seen.append(steps)
        for lane in range(2 * tp):  # the ranks of a stage and a tp coordinate: no sample is asked for twice or by none
            ranks = [lane // tp * dp * tp + d * tp + lane % tp for d in range(dp)]
            asked = sorted(n for rank in ranks for n in items.asked[rank])
            assert asked == sorted(n for step in steps for n in step)
    assert all(steps == seen[0] for steps in seen)
    numbers = [n for step in seen[0] for n in step]
    epochs = [numbers[start : start + count] for start in range(0, len(numbers), count)]
    whole_epochs = [epoch for epoch in epochs if len(epoch) == count]
    assert all(sorted(epoch) == list(range(count)) for epoch in whole_epochs) and len(set(epochs[-1])) == len(
        epochs[-1]
    )
    assert count < 5 or any(
        epoch != whole_epochs[0] for epoch in whole_epochs[1:]
    )  # each epoch has an order of its own


def test_after_a_resume_on_another_mesh(tiny):
    made = tiny(2, 1)
    uninterrupted = whole(read(made, Numbered(30), 0, STEPS), made, 0, STEPS)
    made = tiny(1, 2)
    before = whole(read(made, Numbered(30), 0, 2), made, 0, 2)
    made = tiny(3, 1)
    after = whole(read(made, Numbered(30), 2, STEPS), made, 2, STEPS)
    assert before + after == uninterrupted

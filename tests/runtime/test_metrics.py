"""What is recorded of a step, and what is said of it."""

import io
import json
import math
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch

from moec.runtime.data import DataFault
from moec.runtime.metrics import Metrics
from moec.runtime.place import Place
from moec.runtime.progress import Progress, duration
from moec.runtime.step_costs import StepCosts
from moec.runtime.tensorboard import Board, check_tensorboard

ONE = Metrics(
    step=1,
    loss=0.1 + 0.2,
    lr=3e-4,
    grad_norm=math.pi,
    tokens=100,
    seconds=0.5,
    compute=0.3,
    communication=0.15,
    data=0.05,
    memory=1 << 30,
    skipped=False,
    experts={"layers.0": [30, 10]},
    dropped={"layers.0": 4},
)


def test_a_record_has_all_digits():
    record = json.loads(json.dumps(ONE.record))
    assert record["loss"] == 0.1 + 0.2 and record["grad_norm"] == math.pi
    assert record["tokens_per_second"] == 200.0
    assert record["experts"] == {"layers.0": [30, 10]} and record["dropped"] == {"layers.0": 4}
    assert "skipped" not in record


def test_what_is_no_number_is_null():
    record = replace(ONE, loss=math.nan, grad_norm=math.inf, skipped=True, experts={}).record
    text = json.dumps(record, allow_nan=False)
    assert json.loads(text)["loss"] is None and json.loads(text)["skipped"] is True
    assert "experts" not in json.loads(text)


def test_progress_without_a_terminal_says_first_last_and_the_sum():
    out = io.StringIO()
    progress = Progress(50, out)
    for step in range(1, 51):
        seconds = 2.0 if step == 1 else 0.5
        progress.step(replace(ONE, step=step, loss=10.0 - step / 10, seconds=seconds, skipped=step == 7))
    progress.finish(["metrics: m.jsonl"])
    first, last, summary, parts, skipped, where = out.getvalue().splitlines()
    assert first == "step 1/50  loss 9.9000  lr 3.00e-04  50 tokens/s  1 min 38 s left"
    assert last == "step 50/50  loss 5.0000  lr 3.00e-04  200 tokens/s"
    assert summary.startswith("50 steps in ")
    assert summary.endswith(": loss 9.9000 -> 5.0000, 200 tokens/s after the first step")
    assert parts == "a step takes 0.5 s, in which a rank computes 60.0%, talks 30.0%, waits for data 10.0%"
    assert skipped == "1 step skipped, for loss or gradients were not finite"
    assert where == "metrics: m.jsonl"


def test_progress_on_a_terminal_is_one_line_that_changes():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    progress = Progress(3, out)
    for step in (1, 2):
        progress.step(replace(ONE, step=step))
    progress.note("step 2  held-out loss 1.0000")
    progress.step(replace(ONE, step=3))
    progress.finish([])
    lines = out.getvalue().split("\n")
    assert [line.count("\r") for line in lines[:3]] == [2, 0, 1]
    assert lines[1] == "step 2  held-out loss 1.0000" and lines[3].startswith("3 steps in ")


def test_nothing_left_to_do_is_said():
    out = io.StringIO()
    Progress(10, out, done=99).finish([])
    assert out.getvalue() == "nothing to do: step 99 is done, and --steps is 10\n"


def test_durations():
    said = [duration(seconds) for seconds in (4.21, 59, 200, 3600 * 2 + 300, 3600 * 24 * 3 + 3600 * 4)]
    assert said == ["4.2 s", "59 s", "3 min 20 s", "2 h 05 min", "3 d 4 h"]


def test_costs_are_means_over_ranks_and_the_fullest_stage():
    """Four ranks on two stages; what is waited between steps is of none, what is waited in the sum of the next."""
    ranks = [SimpleNamespace(waited=1.0) for _ in range(4)]
    runs = [SimpleNamespace(waited_for_data=0.1 * rank) for rank in range(4)]
    places = [
        Place(
            n, {"pp": 2, "dp": 2}, {"pp": n // 2, "dp": n % 2}, {}, n - 2 if n > 1 else None, n + 2 if n < 2 else None
        )
        for n in range(4)
    ]
    costs = [StepCosts(*each, 4, torch.device("cpu")) for each in zip(ranks, runs, places, strict=True)]

    def step(waits, in_the_sum):
        for cost in costs:
            cost.begin()
        for rank, wait in zip(ranks, waits, strict=True):
            rank.waited += wait
        total = sum(cost.mine() for cost in costs)
        for cost, rank in zip(costs, ranks, strict=True):
            rank.waited += in_the_sum
            cost.told(total)
            cost.end()
            rank.waited += 100.0

    step((0.1, 0.2, 0.3, 0.4), 1.0)
    assert math.isclose(costs[3].communication, 0.25) and math.isclose(costs[0].data, 0.15)
    step((0.0, 0.0, 0.0, 0.8), 0.0)
    assert math.isclose(costs[1].communication, 1.2)
    assert costs[0].memory > 1 << 20


def test_tensorboard(monkeypatch):
    """By a package that stands for it: where it is not installed, that is said."""
    written = {}

    class Writer:
        def __init__(self, folder, purge_step):
            written["opened"] = folder, purge_step

        def add_scalar(self, name, value, step):
            written[name] = value, step

        def close(self):
            written["closed"] = True

    module = ModuleType("torch.utils.tensorboard.writer")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", ModuleType("torch.utils.tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", module)
    board = Board("runs", 6)
    board.write(replace(ONE, step=7))
    board.write_held_out(7, 2.5)
    board.close()
    assert written["opened"] == ("runs", 7) and written["closed"]
    assert written["loss"] == (ONE.loss, 7) and written["held_out_loss"] == (2.5, 7)
    assert written["experts/layers.0/fullest_over_mean"] == (1.5, 7)
    assert written["experts/layers.0/dropped"] == (0.1, 7)
    monkeypatch.setattr("moec.runtime.tensorboard.find_spec", lambda name: None)
    with pytest.raises(DataFault, match="pip install tensorboard"):
        check_tensorboard()

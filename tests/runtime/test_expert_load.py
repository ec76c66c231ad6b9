"""Choices of experts are counted as a loop over tokens counts them, a rank at a time, and add up over ranks."""

import random

import torch

from moec.runtime import expert_load
from moec.runtime.expert_load import ExpertLoad, Router

CPU = torch.device("cpu")
ROUTERS = (Router("first", 0, 4, 24), Router("second", 1, 6, 24), Router("third", 1, 3, 48))


def decide(load, micro_batches, draw, keeps=True):
    """Tell of random decisions of the routers of stage 1; what a loop counts of them."""
    chosen = {"second": [0] * 6, "third": [0] * 3}
    dropped = {"second": 0, "third": 0}
    for _ in range(micro_batches):
        for name, experts, top_k in (("second", 6, 1), ("third", 3, 2)):
            expert = torch.tensor(
                [[[draw.randrange(experts) for _ in range(top_k)] for _ in range(4)] for _ in range(2)]
            )
            kept = torch.tensor(
                [[[draw.random() < 0.7 or not keeps for _ in range(top_k)] for _ in range(4)] for _ in range(2)]
            )
            load.chosen(expert)
            if keeps:
                load.kept(kept)
            for value, room in zip(expert.flatten().tolist(), kept.flatten().tolist(), strict=True):
                chosen[name][value] += 1
                dropped[name] += not room
    return chosen, dropped


def test_two_ranks_with_copies():
    """Ranks 1 and 2 hold the same tokens of stage 1, and rank 0 another stage."""
    for keeps in (True, False):
        loads = [ExpertLoad(ROUTERS, stage, CPU) for stage in (0, 1, 1)]
        total_chosen = None
        for step in range(3):
            chosen, dropped = decide(loads[1], 3, random.Random(step), keeps)
            assert decide(loads[2], 3, random.Random(step), keeps) == (chosen, dropped)
            total = sum(load.mine() for load in loads)
            for load in loads:
                load.told(total)
                assert load.counts() == {"first": [0] * 4, **chosen}
                assert load.dropped() == {"first": 0, **dropped}
            before = total_chosen or {name: [0] * len(counts) for name, counts in chosen.items()}
            total_chosen = {name: [a + b for a, b in zip(before[name], chosen[name], strict=True)] for name in chosen}
            assert loads[0].state() == {"first": [0] * 4, **total_chosen}
        other = ExpertLoad(ROUTERS, 0, CPU)
        other.restore({**loads[0].state(), "strange": [1]})
        assert other.state() == loads[0].state()


def test_what_is_held_is_bounded(monkeypatch):
    monkeypatch.setattr(expert_load, "_HELD", 40)
    load = ExpertLoad(ROUTERS, 1, CPU)
    most = 0
    chosen, _ = decide(load, 3, random.Random(7))
    for seed in range(20):
        load.mine()
        chosen, _ = decide(load, 3, random.Random(seed))
        most = max(most, sum(expert.numel() for expert in load._experts))
    assert most <= 40 + 24
    load.told(load.mine())
    assert {name: load.counts()[name] for name in chosen} == chosen


def test_decisions_of_a_replay_do_not_count():
    load = ExpertLoad(ROUTERS, 1, CPU)
    decide(load, 2, random.Random(1))
    load.forget()
    chosen, _ = decide(load, 3, random.Random(2))
    load.told(load.mine())
    assert {name: load.counts()[name] for name in chosen} == chosen


def test_a_program_that_decides_elsewhere_counts_nothing():
    load = ExpertLoad(ROUTERS, 1, CPU)
    decide(load, 2, random.Random(1))
    load.chosen(torch.zeros(2, 4, 1, dtype=torch.int64))
    assert not load.mine().any()


def test_a_job_without_experts():
    load = ExpertLoad((), 0, CPU)
    load.told(load.mine())
    assert load.counts() == load.dropped() == load.state() == {}

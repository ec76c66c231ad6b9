"""How long ranks talk: the formulas of ring algorithms, and all_reduces that were measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from moec.compiler.cost.links import Spread, collective_seconds, latency, link_rate, message_seconds, spread
from moec.compiler.cost.machine import Machine, machine_of
from moec.dsl import read_plan
from moec.dsl.plan import Hardware

FLAGSHIP = Path(__file__).parents[2] / "examples/30b_moe.plan"
NODE = Spread(8, 1, 8)
MIB = 2**20

MEASURED = {
    ("a100", 2): {1: 45.1, 16: 129.4, 64: 404.0, 256: 1454.4, 1024: 5453.4},
    ("a100", 4): {1: 52.74, 16: 177.8, 64: 540.6, 256: 1927.7, 1024: 7275.5},
    ("a100", 8): {1: 92.15, 16: 231.0, 64: 579.6, 256: 2158.0, 1024: 8196.4},
    ("v100", 8): {1: 78.61, 16: 273.7, 64: 912.2, 256: 3529.2, 1024: 13983.0},
    ("b200", 8): {16: 115.2, 64: 293.2, 256: 727.1, 1024: 2597.7, 4096: 10148.0},
}
"""Microseconds of an all_reduce by MiB: VIA-Research/vTrain@f8dda847 trace/ (MIT licence), and of B200 from GB/s in
stas00/ml-engineering@744d01e1 network/README.md."""


def machine_on(name: str) -> Machine:
    return machine_of(replace(read_plan(str(FLAGSHIP)), hardware=Hardware(name, ())))


@pytest.fixture
def a100() -> Machine:
    return machine_on("a100")


@pytest.mark.parametrize(("kind", "rounds"), (("all_reduce", 2), ("all_gather", 1), ("reduce_scatter", 1)))
def test_a_ring_passes_the_data_once_or_twice(a100: Machine, kind: str, rounds: int):
    size = 64 * MIB
    operand = size / 8 if kind == "all_gather" else size
    moved = rounds * 7 / 8 * size
    wanted = latency(rounds, NODE, a100) + moved / (a100.link_bandwidth * a100.link_efficiency)
    assert collective_seconds(kind, operand, NODE, a100) == pytest.approx(wanted)


def test_a_gather_and_a_scatter_move_what_a_sum_does(a100: Machine):
    size = 1024 * MIB
    both = collective_seconds("reduce_scatter", size, NODE, a100) + collective_seconds(
        "all_gather", size / 8, NODE, a100
    )
    assert both == pytest.approx(collective_seconds("all_reduce", size, NODE, a100), rel=0.01)


@pytest.mark.parametrize(("name", "ranks"), MEASURED)
def test_measured_sums(name: str, ranks: int):
    """Within an eighth in the mean, a quarter each: two ranks get less out of their link than eight do."""
    machine, group = machine_on(name), Spread(ranks, 1, ranks)
    off = [
        collective_seconds("all_reduce", size * MIB, group, machine) / (micros * 1e-6) - 1
        for size, micros in MEASURED[name, ranks].items()
    ]
    assert max(map(abs, off)) < 0.25, off
    assert sum(map(abs, off)) / len(off) < 0.125, off


def test_one_rank_does_not_talk(a100: Machine):
    assert collective_seconds("all_reduce", MIB, Spread(1, 1, 1), a100) == 0


def test_between_nodes_every_rank_brings_its_network_card(a100: Machine):
    size = 1024 * MIB
    alone = collective_seconds("all_reduce", size, spread(range(0, 64, 8), 8), a100)
    together = collective_seconds("all_reduce", size, spread(range(0, 64, 2), 8), a100)
    assert alone / together == pytest.approx(4 * (7 / 8) / (31 / 32), rel=0.02)


def test_an_exchange_leaves_the_node_with_what_is_for_others(a100: Machine):
    size, group = 1024 * MIB, spread(range(16), 8)
    rate = a100.network_bandwidth * a100.network_efficiency
    taken = collective_seconds("all_to_all", size, group, a100) - latency(1, group, a100)
    assert taken == pytest.approx(size / 2 / rate)


def test_a_message_takes_the_link_or_the_network(a100: Machine):
    assert message_seconds(MIB, 0, 1, a100) < message_seconds(MIB, 7, 8, a100)


def test_without_a_switch_few_ranks_have_few_links():
    machine = machine_on("mi300x")
    assert link_rate(2, machine) == pytest.approx(64e9 * machine.link_efficiency)
    assert link_rate(8, machine) == pytest.approx(448e9 * machine.link_efficiency)

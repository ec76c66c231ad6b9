"""A kernel's time: the roofline, less for what does not fill the device."""

from dataclasses import replace
from pathlib import Path

import pytest

from moec.compiler.cost.kernels import Kernel, fill, seconds
from moec.compiler.cost.machine import Machine, machine_of
from moec.dsl import read_plan
from moec.dsl.plan import Hardware

FLAGSHIP = Path(__file__).parents[2] / "examples/30b_moe.plan"
LARGE = (1, 16_384, 16_384, 16_384)


@pytest.fixture
def machine() -> Machine:
    return machine_of(replace(read_plan(str(FLAGSHIP)), hardware=Hardware("a100", ())))


def product(*sizes: int) -> Kernel:
    count, rows, columns, depth = sizes
    moved = 2 * count * (rows * depth + depth * columns + rows * columns)
    return Kernel("mm", "product", 2.0 * count * rows * columns * depth, moved, (count, rows, columns, depth))


def test_a_large_product_reaches_the_machine_s_efficiency(machine: Machine):
    reached = product(*LARGE).flops / seconds(product(*LARGE), machine)
    assert reached == pytest.approx(machine.compute * machine.efficiency, rel=0.03)


@pytest.mark.parametrize("dim", (1, 2, 3))
def test_smaller_products_reach_less(machine: Machine, dim: int):
    smaller = [size // 64 if place == dim else size for place, size in enumerate(LARGE)]
    assert fill(product(*smaller).sizes, machine) < fill(LARGE, machine)


def test_many_small_products_fill_what_one_does_not(machine: Machine):
    assert fill((64, 256, 256, 4096), machine) > fill((1, 256, 256, 4096), machine)


def test_a_product_of_wider_elements_has_their_rate(machine: Machine):
    assert machine.rates == {2: machine.compute, 4: 19.5e12, 8: 9.7e12}
    wide = replace(product(*LARGE), itemsize=4)
    assert wide.flops / seconds(wide, machine) == pytest.approx(19.5e12 * machine.efficiency, rel=0.03)
    assert seconds(wide, replace(machine, rates={})) == seconds(product(*LARGE), machine)


def test_slower_elements_are_in_smaller_tiles(machine: Machine):
    """A product that is too small to fill the device comes nearer to a lower rate."""
    small = (1, 1024, 64, 1024)
    assert fill(small, machine) < 0.2 < fill(small, machine, 1 / 16) < 1


def test_in_eight_bits_runs_what_would_run_in_sixteen(machine: Machine):
    machine = replace(machine, rates={1: 2 * machine.compute, 4: machine.compute / 16})
    half, single = (replace(product(*LARGE), itemsize=size) for size in (2, 4))
    assert seconds(half, machine, float8=True) < 0.6 * seconds(half, machine)
    assert seconds(single, machine, float8=True) == seconds(single, machine)


def test_products_of_experts_have_a_rate_of_their_own(machine: Machine):
    grouped = replace(product(*LARGE), kind="grouped")
    slower = replace(machine, grouped=0.5)
    assert seconds(grouped, slower) == pytest.approx(2 * seconds(grouped, machine), rel=0.01)
    assert seconds(product(*LARGE), slower) == seconds(product(*LARGE), machine)


def test_attention_reaches_what_was_measured_on_an_h100():
    """Shah et al., FlashAttention-3, figures 5 and 6: between cuDNN and FlashAttention-3, in TFLOP/s."""
    machine = replace(
        machine_of(replace(read_plan(str(FLAGSHIP)), hardware=Hardware("h100", ()))), efficiency=794.5 / 989
    )
    columns = {
        "attention": ((512, 315, 292), (1024, 410, 423), (2048, 484, 521), (4096, 518, 579), (16_384, 539, 616)),
        "attention_backward": (
            (512, 305, 316),
            (1024, 408, 424),
            (2048, 465, 501),
            (4096, 499, 542),
            (16_384, 516, 561),
        ),
    }
    for kind, rows in columns.items():
        for positions, *measured in rows:
            keys = positions // 2 if kind == "attention" else positions  # the backward was measured without a mask
            reached = 1e12 / seconds(Kernel("attention", kind, 1e12, 1, (1, positions, keys, 128)), machine) / 1e12
            assert 0.9 * min(measured) < reached < 1.1 * max(measured), (kind, positions, reached)


def test_what_goes_through_memory_takes_its_bandwidth(machine: Machine):
    moved = 1 << 30
    taken = seconds(Kernel("add", "memory", 0.0, moved), machine) - machine.launch
    assert taken == pytest.approx(moved / (machine.memory_bandwidth * machine.memory_efficiency))


def test_a_product_of_few_rows_is_bound_by_memory(machine: Machine):
    thin = product(1, 8, 16_384, 16_384)
    assert seconds(thin, machine) >= thin.moved / machine.memory_bandwidth

"""Fits find the constants that made up the timings, what is written is read again, and a quick run does it all."""

import random
import tomllib
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest
import torch

from moec.cli import main
from moec.compiler.cost.calibrate.attention import attention
from moec.compiler.cost.calibrate.entry import entry_text
from moec.compiler.cost.calibrate.fit_machine import MachineFit, fit_machine
from moec.compiler.cost.calibrate.layers import layer_kernels
from moec.compiler.cost.calibrate.least_squares import least_squares
from moec.compiler.cost.calibrate.messages import groups_of
from moec.compiler.cost.calibrate.order import Order
from moec.compiler.cost.calibrate.processes import Failed, measure
from moec.compiler.cost.calibrate.products import grouped, linears
from moec.compiler.cost.calibrate.start import name_in_table, start_machine
from moec.compiler.cost.calibrate.timings import Measured, Message, Processor, Timing, combine, typical
from moec.compiler.cost.kernels import Kernel, seconds
from moec.compiler.cost.links import Spread, collective_seconds, message_seconds
from moec.compiler.cost.machine import Machine, machine_of
from moec.dsl import read_plan

ORDER = Order("cpu", 8, quick=False)
PROCESSOR = Processor('a "quick" CPU', 1, 2 * 10**9)
RATES = {"half": 5e9, "single": 50e9, "double": 20e9}
TRUE = replace(
    start_machine(ORDER, PROCESSOR),
    compute=RATES["single"],
    tile=8.0,
    depth=12.0,
    grouped=0.8,
    attention=(0.4, 0.3),
    memory_bandwidth=9e9,
    launch=7e-6,
    link_bandwidth=1.5e9,
    link_peer_bandwidth=1.5e9,
    link_efficiency=1.0,
    collective_latency=3e-4,
    link_latency=6e-5,
)


@pytest.fixture(scope="module")
def kernels():
    """Of every call that is timed, with its precision."""
    found = [("single", work) for work in layer_kernels("cpu", "single", 2)]
    found += [("single", work) for work, _ in attention("cpu", "single", 1)]
    for precision in RATES:
        products = chain(linears("cpu", precision, 1), grouped("cpu", precision, 1))
        found += [(precision, work) for work, _ in products]
    return found


def made_up(kernels, noise: float, machine: Machine = TRUE) -> Measured:
    """What a machine of these constants would be measured to be, each time wrong by up to `noise`."""
    draw = random.Random(0)

    def spoiled(exact: float) -> float:
        return exact * (1 + noise * draw.uniform(-1, 1))

    timings = []
    for precision, work in kernels:
        there = replace(machine, compute=RATES[precision])
        timings.append(Timing(precision, work, spoiled(sum(seconds(kernel, there) for kernel in work))))
    messages = []
    for size in (2**12, 2**16, 2**20, 2**24):
        messages.append(Message("send", 2, size, spoiled(message_seconds(size, 0, 1, machine))))
        for ranks in (2, 4, 8):
            for kind in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
                exact = collective_seconds(kind, size, Spread(ranks, 1, ranks), machine)
                messages.append(Message(kind, ranks, size, spoiled(exact)))
    return Measured(PROCESSOR, tuple(timings), tuple(messages), None, 1.0)


def reached(fit: MachineFit) -> dict[str, float]:
    """Constants as the cost model multiplies them."""
    machine = fit.machine
    rates = {precision: rate * machine.efficiency for precision, rate in fit.compute.items()}
    return rates | {
        "memory": machine.memory_bandwidth * machine.memory_efficiency,
        "links": machine.link_bandwidth * machine.link_efficiency,
        "depth": machine.depth,
        "grouped": machine.grouped,
        "launch": machine.launch,
        "forward": machine.attention[0],
        "backward": machine.attention[1],
        "collective": machine.collective_latency,
        "step": machine.link_latency,
    }


EXPECTED = RATES | {
    "memory": 9e9,
    "links": 1.5e9,
    "depth": 12.0,
    "grouped": 0.8,
    "launch": 7e-6,
    "forward": 0.4,
    "backward": 0.3,
    "collective": 3e-4,
    "step": 6e-5,
}


def test_least_squares_finds_what_made_the_times():
    def model(values):
        latency, rate = values
        return [latency + size / rate for size in (1e3, 1e5, 1e7)]

    assert least_squares(model, model((2e-5, 3e9)), (1.0, 1.0)) == pytest.approx((2e-5, 3e9), rel=1e-6)


def test_constants_are_found(kernels):
    fit = fit_machine(ORDER, made_up(kernels, noise=0.0))
    assert reached(fit) == pytest.approx(EXPECTED, rel=1e-3) and fit.machine.tile == TRUE.tile
    assert max(fit.errors.values()) < 1e-3


def test_noise_moves_them_little(kernels):
    fit = fit_machine(ORDER, made_up(kernels, noise=0.2))
    found = reached(fit)
    assert found == pytest.approx(EXPECTED, rel=0.2)
    assert 0.05 < fit.errors["product"] < 0.15, "noise of up to a fifth is a tenth in the mean"


def test_no_part_of_a_peak_is_more_than_it(kernels):
    machine = fit_machine(ORDER, made_up(kernels, noise=0.2)).machine
    assert all(0 < part <= 1 for part in (machine.efficiency, machine.memory_efficiency, machine.link_efficiency))


def test_of_passes_and_ranks_the_disturbed_ones_do_not_count():
    def passed(second):
        return [Timing("single", (), second)]

    assert typical([passed(1.0), passed(9.0), passed(1.1), passed(7.0)])[0].seconds == 1.1
    ranks = [Measured(PROCESSOR, tuple(passed(second)), (), None, 1.0) for second in (1.0, 1.2, 50.0)]
    assert combine(ranks).timings[0].seconds == 1.2


def test_what_is_written_is_read(kernels, tmp_path):
    fit = fit_machine(ORDER, made_up(kernels, noise=0.0))
    machine = read(tmp_path, entry_text("lab", ORDER, fit, share=0.5), "lab", "fp32")
    assert machine.compute * machine.efficiency == pytest.approx(50e9, rel=5e-3)
    assert machine.title == "a quick CPU, one of 8 at work" and machine.ranks_per_node == 8
    assert machine.assumed == ("network_bandwidth", "network_efficiency", "network_latency")
    assert machine.link_peer_bandwidth == machine.link_bandwidth and machine.processor == "cpu"


def test_one_rank_says_nothing_of_links(kernels, tmp_path):
    alone = Order("cpu", 1, quick=False)
    fit = fit_machine(alone, replace(made_up(kernels, noise=0.0), messages=()))
    machine = read(tmp_path, entry_text("lab", alone, fit, share=1.0), "lab", "fp32")
    assert {"link_bandwidth", "collective_latency", "network_bandwidth"} <= set(machine.assumed)


def test_a_busy_machine_is_named(kernels):
    fit = fit_machine(ORDER, made_up(kernels, noise=0.0))
    assert "# Other work took 40% of the processors" in entry_text("lab", ORDER, fit, share=0.6)
    assert "Other work" not in entry_text("lab", ORDER, fit, share=1.0)


def test_of_a_known_gpu_the_data_sheet_says_the_peaks():
    processor = Processor("NVIDIA H100 80GB HBM3", 132, 80 * 10**9)
    order = Order("cuda", 8, quick=False)
    true = replace(start_machine(order, processor), compute=700e12, memory_bandwidth=2.8e12, launch=4e-6, depth=200.0)
    true = replace(true, attention=(0.6, 0.5), tile=128.0)
    work = [("half", kernels) for kernels in layer_kernels("cuda", "half", 1)]
    work += [("half", (attended,)) for attended in attended_kernels()]
    work += [(precision, (product,)) for precision in RATES for product in large_products()]
    timings = [Timing(precision, kernels, sum(seconds(x, true) for x in kernels)) for precision, kernels in work]
    fit = fit_machine(order, Measured(processor, tuple(timings), (), 9e-6, 1.0))
    machine = fit.machine
    assert machine.compute == 989e12 and machine.efficiency == pytest.approx(700 / 989, rel=1e-2)
    assert machine.memory_bandwidth == 3.35e12 and machine.memory_efficiency == pytest.approx(2.8 / 3.35, rel=1e-2)
    assert machine.units == 132 and machine.tile == 128 and machine.dispatch == 9e-6
    assert fit.compute["float8"] == 1979e12 and fit.compute["single"] == pytest.approx(989e12, rel=1e-2)


def large_products() -> list[Kernel]:
    sizes = (
        (1, 8192, 8192, 8192),
        (1, 1024, 4096, 512),
        (1, 256, 256, 256),
        (8, 200, 4096, 2048),
        (1, 4096, 1000, 300),
    )
    return [
        Kernel(
            "mm", "grouped" if e > 1 else "product", 2.0 * e * m * n * k, 2 * e * (m * n + m * k + n * k), (e, m, n, k)
        )
        for e, m, n, k in sizes
    ]


def attended_kernels() -> list[Kernel]:
    return [Kernel("sdpa", kind, 1e12, 10**6) for kind in ("attention", "attention_backward")]


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100_40gb"),
        ("Tesla V100-SXM2-32GB", "v100"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA H20", "h20"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("AMD Instinct MI300X", "mi300x"),
        ("NVIDIA GeForce RTX 4090", "gpu"),
    ],
)
def test_a_gpu_is_found_in_the_table(title, name):
    assert name_in_table(Order("cuda", 1, quick=False), Processor(title, 132, 10**11)) == name


def test_groups_lie_side_by_side():
    assert groups_of(5, 8) == {"of2": (4, 5), "of4": (4, 5, 6, 7), "of8": tuple(range(8))}
    assert groups_of(2, 3) == {"of3": (0, 1, 2)} and groups_of(0, 1) == {}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--ranks", "0"], "E115"),
        (["--ranks", "1000"], "E115"),
        (["--ranks", "many"], "E115"),
        (["--device", "tpu"], "E115"),
        (["--name", "8 ranks"], "E113"),
        (["--name", "gpu"], "E113"),
        (["--name", "h100"], "E113"),
        (["-o", "nowhere/hardware.toml"], "E507"),
        (["-o", "."], "E507"),
        (["-o", "mine.toml"], "E505"),
    ],
)
def test_faults_are_coded(arguments, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text("[mine]\n")
    assert main(["calibrate", *arguments]) == 2
    out, err = capsys.readouterr()
    assert f"error[{code}]" in err and not out and Path("mine.toml").read_text() == "[mine]\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_no_gpu_is_told(capsys):
    assert main(["calibrate", "--device", "cuda"]) == 2 and "--device cpu" in capsys.readouterr().err


def test_a_rank_that_fails_ends_all():
    with pytest.raises(Failed, match=r"^rank [01]: KeyError: 'abacus'$"):
        measure(Order("abacus", 2, quick=True))


@pytest.mark.sweep
def test_quick(tmp_path, capsys):
    path = tmp_path / "hardware.toml"
    assert main(["calibrate", "--quick", "--device", "cpu", "--ranks", "2", "--name", "lab", "-o", str(path)]) == 0
    assert f"--hardware {path} --set hardware=lab" in capsys.readouterr().out
    entry = tomllib.loads(path.read_text())["lab"]
    machine = read(tmp_path, path.read_text(), "lab", "fp64")
    assert machine.compute == entry["compute"]["double"] < entry["compute"]["single"]
    assert 1e8 < machine.compute < 1e13 and 1e8 < machine.memory_bandwidth < 1e13
    assert 1e-7 < machine.launch < 1e-2 and 1e-6 < machine.collective_latency < 1
    assert 0 < machine.efficiency <= 1 and machine.ranks_per_node == 2


def read(folder: Path, text: str, name: str, precision: str) -> Machine:
    """As a plan gets it that names the entry."""
    table, plan = folder / "table.toml", folder / "small.plan"
    table.write_text(text, encoding="utf-8")
    plan.write_text(
        "model small { layers = 2  hidden = 64  heads = 4  ffn = 128  vocab = 256  seq = 64 }\n"
        "mesh { tp = 2 }\nshard { heads, ffn, vocab over tp }\nschedule gpipe { batch = 2 }\n"
        f"train {{ precision = {precision} }}\nhardware {name} {{ }}\n"
    )
    return machine_of(read_plan(str(plan)), (table,))

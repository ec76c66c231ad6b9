"""Bounds are decided, and a change that keeps a broken one is found."""

import json
from pathlib import Path

import pytest

from moec.cli import main
from moec.compiler.cost import machine_of
from moec.compiler.cost.machine import read_table
from moec.compiler.cost.read_hardware import wrong_fields
from moec.dsl import PlanError, read_plan

PLAN = """
model m {{ layers = 4  hidden = 512  heads = 8  ffn = 2048  vocab = 1024  seq = 512 }}
mesh {{ pp = 2  dp = 2 }}
shard {{ layers over pp  batch over dp }}
schedule gpipe {{ batch = 32  accumulate = 8 }}
hardware a100 {{ }}
require {{ {bounds} }}
"""


def run(tmp_path: Path, bounds: str, *command: str) -> int:
    path = tmp_path / "m.plan"
    path.write_text(PLAN.format(bounds=bounds), encoding="utf-8")
    return main([command[0], str(path), *command[1:]])


def test_check_fails_where_a_bound_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "world <= 4  memory < 1 GiB", "check") == 0
    out = capsys.readouterr().out
    assert "keeps  world" in out and "keeps  memory" in out
    assert run(tmp_path, "world <= 2  memory < 1 GiB", "check") == 1
    out = capsys.readouterr().out
    assert "BREAKS world" in out and "--set mesh." in out
    assert run(tmp_path, "world <= 2", "compile", "-o", str(tmp_path / "out")) == 0
    assert "BREAKS world" in capsys.readouterr().out


def test_records_of_bounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "world < 4  bubble < 90 %", "estimate", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    world, bubble = record["requirements"]
    assert (world["name"], world["bound"], world["value"], world["passed"]) == ("world", 4.0, 4.0, False)
    assert world["margin"] == 0.0 and bubble["passed"] and bubble["margin"] > 0
    assert record["world_size"] == 4 and record["trace_seconds"] > 0 and record["estimate_seconds"] > 0


def test_a_mend_keeps_the_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fewer micro-batches in flight, as 1F1B or a finer accumulation has, need less memory."""
    run(tmp_path, "", "estimate", "--json")
    now = json.loads(capsys.readouterr().out)["memory_bytes"]
    bound = f"memory < {int(0.9 * now)} B"
    assert run(tmp_path, bound, "check", "--json") == 1
    (found,) = json.loads(capsys.readouterr().out)["requirements"]
    assert not found["passed"] and found["mend"]["passed"] and found["mend"]["settings"]
    settings = [word for setting in found["mend"]["settings"] for word in ("--set", setting)]
    assert run(tmp_path, bound, "check", *settings) == 0


def test_comparison_begins_with_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, kind in (("a", "gpipe"), ("b", "1f1b")):
        text = PLAN.format(bounds="world < 9").replace("gpipe", kind)
        (tmp_path / f"{name}.plan").write_text(text, encoding="utf-8")
    assert main(["compare", str(tmp_path / "a.plan"), str(tmp_path / "b.plan")]) == 0
    differ, same = capsys.readouterr().out.split("the same in all")
    assert "settings that differ" in differ and "schedule " in differ and "memory" in differ
    assert "mesh.pp" in same and "parameters" in same
    assert main(["compare", str(tmp_path / "a.plan"), str(tmp_path / "b.plan"), "--json"]) == 0
    assert [each["requirements"][0]["passed"] for each in json.loads(capsys.readouterr().out)] == [True, True]


def test_an_estimate_says_how_long_it_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "", "estimate") == 0
    out = capsys.readouterr().out
    assert "traced in" in out and "NVIDIA A100" in out and "assumed" in out


def test_hardware_that_the_table_does_not_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = "compute = 100 TFLOP/s  memory = 40 GB  memory_bandwidth = 1 TB/s  link_bandwidth = 100 GB/s"
    text = PLAN.format(bounds="").replace(
        "a100 { }", f"mine {{ {said} network_bandwidth = 10 GB/s ranks_per_node = 4 }}"
    )
    path = tmp_path / "m.plan"
    path.write_text(text, encoding="utf-8")
    assert main(["estimate", str(path)]) == 0
    out = capsys.readouterr().out
    assert "4 x mine" in out and "of 100 TFLOP/s" in out and "efficiency" in out  # which is assumed


@pytest.mark.parametrize("name", sorted(set(read_table()) - {"gpu"}))
def test_every_entry_of_the_table(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.plan"
    path.write_text(PLAN.format(bounds="").replace("a100", name), encoding="utf-8")
    machine = machine_of(read_plan(str(path)))
    assert machine.sources and machine.memory > 0 and machine.compute > 0
    assert 0.3 < machine.efficiency <= 0.9 and 0.3 < machine.memory_efficiency <= 0.95  # as plausible as measured
    assert 1e-7 < machine.launch < 2e-5 or name == "cpu"


@pytest.mark.parametrize(
    "entry",
    [
        '[mine]\nlike = "h10"',
        '[mine]\nlike = "other"\n[other]\nlike = "mine"',
        '[mine]\ntitle = "x"\ncompute = 1e12',
        '[mine]\nlike = "h100"\ncompute = "fast"',
        '[mine]\nlike = "h100"\nattention = [0.5]',
        '[mine]\nlike = "h100"\nunits = 0',
        '[mine]\nlike = "h100"\nmemory_bandwidth = -1.0',
        '[mine]\nlike = "h100"\nmemory_bandwith = 1e9',
        '[mine]\nlike = "h100"\nranks_per_node = 0.5',
        '[mine]\nlike = "h100"\nranks_per_node = 4.7',
        '[mine]\nlike = "h100"\nprocessor = "banana"',
        '[mine]\nlike = "h100"\nattention = [5, 5]',
        '[mine]\nlike = "h100"\ngrouped = 7',
        '[mine]\nlike = "h100"\nunits = 0.3',
        '[mine]\nlike = "h100"\ntile = 1e300',
        '[mine]\nlike = "h100"\nlaunch = true',
        '[mine]\nlike = "h100"\nmemory = nan',
        f'[mine]\nlike = "h100"\nmemory = 1{"0" * 400}',
        f"mine = {'[' * 100_000}",
        '[mine]\nlike = "h100"\n[a100]\nlike = "h100"',
        "[gpu]\nunits = 3",
        "no toml",
    ],
)
def test_a_file_of_hardware_that_is_wrong(entry: str, tmp_path: Path) -> None:
    path, file = tmp_path / "m.plan", tmp_path / "mine.toml"
    path.write_text(PLAN.format(bounds="").replace("a100", "mine"), encoding="utf-8")
    file.write_text(entry + "\n", encoding="utf-8")
    with pytest.raises(PlanError) as fault:
        machine_of(read_plan(str(path)), (file,))
    assert {diagnostic.code for diagnostic in fault.value.diagnostics} == {"E119"}


@pytest.mark.parametrize("name", sorted(read_table()))
def test_the_table_keeps_the_limits_of_plans(name: str) -> None:
    assert list(wrong_fields(read_table()[name])) == []


EXPERTS = """
model m { layers = 2  hidden = 32  heads = 4  vocab = 64  seq = 32  experts { count = 4  hidden = 32  top_k = 1 } }
mesh { ep = 2 }
shard { batch, experts over ep }
schedule gpipe { batch = 4 }
hardware measured { }
require { load_balance > 70 % }
"""


@pytest.mark.parametrize("command", ["check", "compile", "run", "estimate", "report"])
def test_a_plan_that_names_a_calibrated_machine(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command that reads its hardware takes the file that has it, and the rows that a run recorded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("moec.commands.start_ranks.start_ranks", lambda command: 0)
    (tmp_path / "m.plan").write_text(EXPERTS, encoding="utf-8")
    (tmp_path / "hw.toml").write_text('[measured]\nlike = "a100"\ntitle = "ours"\n', encoding="utf-8")
    (tmp_path / "rows.json").write_text('{"step": 1, "experts": {"layers.0.ffn": [9, 0, 0, 0]}}', encoding="utf-8")
    assert main([command, "m.plan"]) == 2
    assert "error[E119]" in capsys.readouterr().err
    assert main([command, "m.plan", "--hardware", "hw.toml"]) == 0
    assert "BREAKS" not in capsys.readouterr().out
    status = main([command, "m.plan", "--hardware", "hw.toml", "--routing", "rows.json"])
    assert status == (1 if command == "check" else 0)
    assert command == "report" or "BREAKS load_balance          50.0 %" in capsys.readouterr().out


def test_routing_of_a_model_without_experts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "load_balance > 1 %", "estimate", "--routing", "zipf:2") == 0
    out, err = capsys.readouterr()
    assert "\nexperts " not in out and "zipf" not in out and err.count("`--routing` has no effect") == 1
    assert run(tmp_path, "", "check", "--json", "--routing", "zipf:2") == 0
    (warning,) = json.loads(capsys.readouterr().out)["diagnostics"]
    assert warning["code"] == "W002" and "--routing" in warning["message"]


def test_a_figure_is_explained_and_the_plan_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["estimate", "--explain", "world", "--mend"]
    assert run(tmp_path, "world <= 2", *options) == 0
    out = capsys.readouterr().out
    assert out.startswith("world = pp * dp\n") and "BREAKS world" in out and "--set mesh." in out
    assert run(tmp_path, "world <= 2", *options, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["explanation"] and record["requirements"][0]["mend"]["passed"]


def test_a_plan_that_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = PLAN.format(bounds="throughput > 1_000_000_000 tokens/s").replace("a100 { }", "a100 { memory = 1 MiB }")
    path = tmp_path / "m.plan"
    path.write_text(text, encoding="utf-8")
    assert main(["estimate", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is False
    assert main(["estimate", str(path)]) == 0
    assert "DOES NOT FIT" in capsys.readouterr().out


ALIKE = """
model net = python "alike:Net" {
  width = 32  experts = 6  layers = 3
  small { width = 13  experts = 3 }
  inputs { x = float[batch, width] }
  weights { "layers.*.up" [experts, _, _]  "layers.*.down" [experts, _, _] }
}
mesh { ep = 3  dp = 2 }
shard { batch over dp, ep   experts over ep }
schedule 1f1b { batch = 24  accumulate = 4 }
hardware h100 { }
require { memory < 1 KiB }
"""

ALIKE_MODULE = """
import torch
import torch.nn.functional as F
from torch import nn
from moec.runtime.routing import collect, dispatch, grouped_linear, route


class Layer(nn.Module):
    def __init__(self, width, experts):
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.empty(experts, 2 * width, width))
        self.down = nn.Parameter(torch.empty(experts, width, 2 * width))
        self.experts = experts

    def forward(self, x):
        h = x[:, None]
        prob, expert, place = route(self.router(h).float(), 1, None, softmax_first=True)
        rows = dispatch(h, expert, place, self.experts, None)
        rows = grouped_linear(F.gelu(grouped_linear(rows, self.up)), self.down)
        return x + collect(rows, prob, expert, place)[:, 0]


class Net(nn.Module):
    def __init__(self, width, experts, layers):
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, experts) for _ in range(layers))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x.square().mean()
"""


def test_a_batch_like_another_size(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Micro-batches of 6 samples and 6 experts: a search that changes one does not change the other."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "alike.py").write_text(ALIKE_MODULE, encoding="utf-8")
    (tmp_path / "m.plan").write_text(ALIKE, encoding="utf-8")
    assert main(["check", str(tmp_path / "m.plan")]) == 1
    assert "none of 24 changes" in capsys.readouterr().out


def test_a_mend_of_few_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bound that a sixteenth of a micro-batch keeps needs no other change."""
    path = tmp_path / "m.plan"
    text = """
        model m { layers = 2  hidden = 64  heads = 2  ffn = 128  vocab = 128  seq = 256 }
        mesh { dp = 2 }
        shard { batch over dp }
        schedule 1f1b { batch = 128 }
        hardware h100 { }
        require { memory < 16 MiB }"""
    path.write_text(text, encoding="utf-8")
    assert main(["check", str(path), "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["requirements"]
    assert found["mend"]["settings"] == ["schedule.accumulate=16"] and found["mend"]["passed"]


@pytest.mark.parametrize("bounds", ["world < 4", "comm_overhead <= 0"])
def test_a_broken_bound_has_no_plus(bounds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, bounds, "estimate") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("BREAKS")]
    assert "+" not in line


def test_bounds_on_both_sides_have_a_mend_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "world > 7  world < 9", "check", "--json") == 1
    above, below = json.loads(capsys.readouterr().out)["requirements"]
    assert not above["passed"] and above["mend"]["passed"] and "mend" not in below


def test_what_does_not_fit_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "", "check", "--set", "hardware.memory=1 MiB") == 0
    said = f"moec estimate {tmp_path / 'm.plan'} '--set=hardware.memory=1 MiB'"
    assert said in capsys.readouterr().out
    assert main(["compare", *[str(tmp_path / "m.plan")] * 2, "--set", "hardware.memory=1 MiB"]) == 0
    assert "NO" in capsys.readouterr().out


def test_a_type_that_the_hardware_lacks_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "", "estimate", "--set", "hardware=v100", "--set", "train.precision=bf16") == 0
    assert "timed as those of fp16" in capsys.readouterr().out
    assert run(tmp_path, "", "estimate", "--set", "train.precision=bf16") == 0
    assert "timed as" not in capsys.readouterr().out

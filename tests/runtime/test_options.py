"""What a person gives main.py that it cannot take is said in one line, with status 2."""

import json

import pytest
import torch

from moec.runtime.job import JobFault, read_job
from moec.runtime.options import parse_options
from moec.runtime.train import main


@pytest.fixture
def ended(monkeypatch):
    """Ends as a process would, but for the end."""

    def end(status):
        raise SystemExit(status)

    monkeypatch.setattr("os._exit", end)
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


WRONG = {
    ("--timeout", "nan"): "argument --timeout: nan is no number of seconds above 0",
    ("--timeout", "0"): "argument --timeout: 0 is no number of seconds above 0",
    ("--timeout", "-1"): "argument --timeout: -1 is no number of seconds above 0",
    ("--timeout", "inf"): "argument --timeout: inf is no number of seconds above 0",
    ("--timeout", "1e300"): "argument --timeout: 1e300 is no number of seconds above 0",
    ("--timeout", "soon"): "argument --timeout: soon is no number of seconds above 0",
    ("--steps", "-3"): "argument --steps: -3 is no whole number from 0",
    ("--steps", "1.5"): "argument --steps: 1.5 is no whole number from 0",
    ("--seed", "-5"): "argument --seed: -5 is no whole number from 0 to 18446744073709551615",
    ("--seed", str(2**64)): f"argument --seed: {2**64} is no whole number from 0 to 18446744073709551615",
    ("--steps", "\u0663"): "argument --steps: \u0663 is no whole number from 0",
    ("--save", ""): "argument --save: it is empty, and names nothing",
    ("--resume", ""): "argument --resume: it is empty, and names nothing",
    ("--data", ""): "argument --data: it is empty, and names nothing",
    ("--log", ""): "argument --log: it is empty, and names nothing",
    ("--tensorboard", ""): "argument --tensorboard: it is empty, and names nothing",
    ("--device", "cuda"): "--device cuda: torch finds no GPU here that it can use: --device cpu runs without",
}


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_what_is_wrong_is_said_at_the_start(tiny, ended, capfd, monkeypatch, arguments):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as caught:
        parse_options(tiny(1, 1).job, list(arguments))
    assert caught.value.code == 2
    assert capfd.readouterr().err == f"main.py: {WRONG[arguments]}: main.py --help lists what there is\n"


def test_what_is_at_the_edge_is_taken(tiny, ended):
    arguments = ["--timeout", "0.5", "--steps", "0", "--seed", str(2**64 - 1), "--device", "cpu"]
    options = parse_options(tiny(1, 1).job, arguments)
    assert (options.timeout, options.steps, options.seed, options.device) == (0.5, 0, 2**64 - 1, "cpu")


def test_each_process_of_a_machine_takes_a_gpu(tiny, ended, capfd, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    job = tiny(1, 1).job
    assert parse_options(job, []).device == "cuda"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(SystemExit):
        parse_options(job, [])
    assert "4 processes of this machine take a GPU each, and torch finds 2" in capfd.readouterr().err


def without(plan, *names):
    """The text of a plan that lacks these."""
    return json.dumps({name: value for name, value in plan.items() if name not in names})


def test_a_plan_that_is_broken_or_missing(tiny, ended, capfd):
    made = tiny(1, 1)
    path = made.folder / "plan.json"
    plan = json.loads(path.read_text())
    again = f"moec compile PLAN -o {made.folder} makes it anew"
    for text in ("", "{", "[]", "3", "null", without(plan, "train"), json.dumps(plan | {"inputs": [1]}), "\udcff"):
        path.write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(SystemExit) as caught:
            main(made.folder, [])
        said = capfd.readouterr().err
        assert caught.value.code == 2 and said.count("\n") == 1, text
        assert said.startswith(f"{path} is damaged, or of another version of moec (") and said.endswith(f"{again}\n")
    path.unlink()
    with pytest.raises(JobFault) as caught:
        read_job(path)
    assert str(caught.value) == f"{path} cannot be read: No such file or directory: {again}"

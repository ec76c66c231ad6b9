"""The example modules by themselves: they learn, they can be traced, and they train in float64."""

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from moec.compiler.reference.precise import precise
from moec.compiler.reference.train import Hyper, train

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {
    "convnet:ConvNet": {"width": 10, "channels": 6, "blocks": 4},
    "mixer_moe:Mixer": {"vocab": 32, "seq": 16, "width": 32, "mixed": 24, "blocks": 2, "experts": 4, "ffn": 32},
}
DATA = {"convnet:ConvNet": "gratings", "mixer_moe:Mixer": "backwards"}


@pytest.fixture(params=SMALL)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return request.param


def build(target: str) -> nn.Module:
    module, _, name = target.partition(":")
    return vars(importlib.import_module(module))[name](**SMALL[target])


def batches(target: str, steps: int, size: int) -> list[Sequence[Mapping[str, Tensor]]]:
    """Two micro-batches a step."""
    samples = vars(importlib.import_module(target.partition(":")[0]))[DATA[target]]
    found = []
    for first in range(0, 2 * steps * size, size):
        drawn = [samples[first + n] for n in range(size)]
        found.append({name: torch.stack([sample[name] for sample in drawn]) for name in drawn[0]})
    return [found[i : i + 2] for i in range(0, len(found), 2)]


def test_learns(target: str) -> None:
    torch.manual_seed(0)
    trained = train(build(target), batches(target, 60, 16), Hyper(5e-3), lambda name: True)
    losses = [step.loss for step in trained.steps]
    assert losses[0] == pytest.approx(math.log(10 if "convnet" in target else 32), rel=0.15)
    assert losses[-1] < 0.75 * losses[0], losses


def test_traces_on_the_meta_device(target: str) -> None:
    with torch.device("meta"):
        model = build(target)
        inputs = {name: torch.empty_like(x, device="meta") for name, x in batches(target, 1, 4)[0][0].items()}
    graph = torch.export.export(model, (), inputs).graph
    assert any(node.op == "call_function" for node in graph.nodes)


def test_micro_batches_add_up_in_float64(target: str) -> None:
    with precise():
        torch.manual_seed(0)
        parts, whole = build(target), build(target)
        whole.load_state_dict(parts.state_dict())
        given = [
            {name: x.double() if x.is_floating_point() else x for name, x in b.items()}
            for b in batches(target, 1, 4)[0]
        ]
        joined = {name: torch.cat([b[name] for b in given]) for name in given[0]}
        of_parts = train(parts, [given], Hyper(1e-3), lambda name: True).steps[0]
        of_whole = train(whole, [[joined]], Hyper(1e-3), lambda name: True).steps[0]
    assert of_parts.loss == pytest.approx(of_whole.loss, rel=1e-13)
    for name, gradient in of_whole.gradients.items():
        assert gradient.dtype is torch.float64
        torch.testing.assert_close(of_parts.gradients[name], gradient, rtol=1e-9, atol=1e-14)

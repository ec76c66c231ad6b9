"""Values that a module's own constructor gives, one tensor at a time, without the whole module."""

import json
import math
import sys

import pytest
import torch
from torch import nn

from moec.runtime.initial import Initial
from moec.runtime.job import read_job
from moec.runtime.module_values import Model, ModelFault, ModuleValues


class Scale(nn.Module):
    """Parameters and buffers made without reset_parameters."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.start = nn.Parameter(torch.randn(size, 3) * 0.02)
        position, frequency = torch.arange(6).float(), 10.0 ** -(torch.arange(0, size, 2) / size)
        angles = torch.outer(position, frequency)
        table = torch.zeros(6, size)
        table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("mask", torch.ones(5, 5).tril().bool())
        self.register_buffer("given", torch.tensor([1.0, 2.0]) * 3)
        self.register_buffer("turns", torch.polar(torch.ones(6, 2), torch.arange(12.0).view(6, 2)))


class Net(nn.Module):
    def __init__(self, size, layers=2):
        super().__init__()
        self.embed = nn.Embedding(9, size)
        self.layers = nn.ModuleList(nn.Linear(size, size) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for _ in range(layers))
        self.conv = nn.Conv2d(3, size, 3)
        self.attention = nn.MultiheadAttention(size, 2)
        self.scale = Scale(size)
        self.rates = [rate.item() for rate in torch.linspace(0, 0.5, 3)]
        self.orthogonal = nn.Linear(size, 2 * size, bias=False)
        nn.init.orthogonal_(self.orthogonal.weight)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)
        self.head = nn.Linear(size, 9, bias=False)
        self.head.weight = self.embed.weight
        self.teacher = nn.Linear(size, size)
        self.teacher.load_state_dict(self.layers[0].state_dict())
        self.apply(self._start)

    def _start(self, module):
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)


HERE = f"{Net.__module__}:Net"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, Net.__module__, sys.modules.get(Net.__module__) or _this())


def _this():
    module = type(sys)(Net.__module__)
    module.__dict__.update(globals())
    return module


def whole(values, name, x):
    return values(name, x.shape, "module", [slice(0, n) for n in x.shape])


def everything(module):
    return {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}


def test_what_is_not_random_is_exactly_that_of_the_module():
    module, values = Net(8), ModuleValues(Model(HERE, {"size": 8}), 3)
    fixed = ["scale.weight", "scale.table", "scale.mask", "scale.given", "scale.turns", "norms.0.running_var"]
    fixed += ["norms.1.weight", "norms.0.num_batches_tracked", "attention.in_proj_bias"]
    for name in fixed:
        expected = everything(module)[name]
        found = whole(values, name, expected)
        assert found.dtype is (torch.complex128 if expected.is_complex() else torch.float64), name
        assert found.equal(expected.detach().to(found.dtype)), name


def test_what_is_random_is_drawn_as_the_module_does():
    module, values = Net(64), ModuleValues(Model(HERE, {"size": 64}), 3)
    expected = {"embed.weight": 0.5, "layers.0.weight": 1 / math.sqrt(3 * 64), "scale.start": 0.02}
    expected |= {"conv.weight": 0.02, "attention.in_proj_weight": math.sqrt(2 / 256)}
    for name, deviation in expected.items():
        found = whole(values, name, everything(module)[name])
        assert abs(found.std() / deviation - 1) < 0.15 and abs(found.mean()) < deviation / 5, name
        assert found.float().double().equal(found), "float32"
    assert whole(values, "layers.0.bias", module.layers[0].bias).abs().max() <= 1 / 8
    q = whole(values, "orthogonal.weight", module.orthogonal.weight)
    torch.testing.assert_close(q.T @ q, torch.eye(64, dtype=torch.float64), atol=1e-5, rtol=0)


def test_names_and_seeds_decide_and_neither_order_nor_slices():
    module = Net(8)
    tensors = everything(module)
    values = ModuleValues(Model(HERE, {"size": 8}), 3)
    first = {name: whole(values, name, x) for name, x in tensors.items()}
    again = ModuleValues(Model(HERE, {"size": 8, "layers": 3}), 3)
    for name in reversed(tensors):
        assert whole(again, name, tensors[name]).equal(first[name]), name
    assert again("conv.weight", (8, 3, 3, 3), "module", (slice(2, 5), slice(0, 3), slice(1, 2), slice(0, 3))).equal(
        first["conv.weight"][2:5, :, 1:2]
    )
    other = ModuleValues(Model(HERE, {"size": 8}), 4)
    assert not whole(other, "conv.weight", module.conv.weight).equal(first["conv.weight"])
    assert not first["layers.0.weight"].equal(first["layers.1.weight"])
    assert first["head.weight"].equal(first["embed.weight"]), "tied"
    assert first["teacher.weight"].equal(first["layers.0.weight"]), "copied"


def test_memory_is_that_of_one_tensor(monkeypatch):
    """A module of 16 GiB."""
    values = ModuleValues(Model(HERE, {"size": 8192, "layers": 64}), 0)
    bias = values("layers.63.bias", (8192,), "module", (slice(10, 20),))
    assert bias.shape == (10,) and bias.abs().max() <= 1 / math.sqrt(8192)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    values = ModuleValues(Model(HERE, {"size": 8}), 3)
    whole(values, "conv.weight", torch.empty(8, 3, 3, 3))
    assert torch.rand(3).equal(expected)


def test_initial_passes_them_on():
    initial = Initial(3, ModuleValues(Model(HERE, {"size": 8}), 3))
    assert initial("scale.weight", (8,), "module", (slice(0, 2),)).tolist() == [1.0, 1.0]
    assert initial("scale.weight", (8,), "zeros", (slice(0, 2),)).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"initial value `module` of w: the plan has no module of the user's"):
        Initial(3)("w", (8,), "module", (slice(0, 2),))


def test_faults_are_one_line():
    with pytest.raises(ModelFault, match="model no_such:Net: No module named 'no_such'"):
        ModuleValues(Model("no_such:Net", {}), 0)
    with pytest.raises(ModelFault, match=r"has no Nothing"):
        ModuleValues(Model(f"{Net.__module__}:Nothing", {}), 0)
    with pytest.raises(ModelFault, match=r"cannot be built: TypeError: .* unexpected keyword argument 'width'"):
        ModuleValues(Model(HERE, {"width": 8}), 0)
    values = ModuleValues(Model(HERE, {"size": 8}), 0)
    with pytest.raises(ModelFault, match="has no parameter or buffer nothing"):
        values("nothing", (8,), "module", (slice(0, 8),))
    with pytest.raises(ModelFault, match=r"scale.weight of model .* is \[8\], the plan's \[9\]"):
        values("scale.weight", (9,), "module", (slice(0, 9),))


def test_the_folders_of_a_plan_are_relative_to_it(tiny):
    path = tiny(1, 1).folder / "plan.json"
    plan = json.loads(path.read_text())
    plan["model"] = {"target": "nets:Net", "arguments": {"size": 8}, "path": ["../src", "/opt/src"]}
    path.write_text(json.dumps(plan))
    assert read_job(path).model == Model("nets:Net", {"size": 8}, (f"{path.parent}/../src", "/opt/src"))

"""Weights on a mesh: slices, padding, ties, flat buffers, the norm, and AdamW."""

from types import ModuleType

import pytest
import torch

from moec.runtime.initial import Initial
from moec.runtime.learning_rate import LearningRate
from moec.runtime.optimizer import AdamW, Training, clip_factor
from moec.runtime.place import Place
from moec.runtime.weights import Weight, Weights

AXES = {"pp": 2, "dp": 2, "ep": 3, "tp": 2}
LAYER = {
    "norm": Weight("norm.weight", (6,), ((),), "dp_ep", "ones", decay=False),
    "wq": Weight("wq.weight", (7, 6), (("tp",), ()), "dp_ep", "normal 1"),
    "up": Weight("experts.up", (6, 5, 4), (("ep",), ("tp",), ()), "dp", "normal 1"),
    "both": Weight("both.weight", (24, 3), (("ep", "tp"), ()), "dp", "normal 1"),
}
EMBED = {"tokens": Weight("embed.weight", (9, 4), (("tp",), ()), "tied", "normal 1")}


def rank_file(rank):
    strides = {"pp": 12, "dp": 6, "ep": 2, "tp": 1}
    at = {axis: rank // strides[axis] % AXES[axis] for axis in AXES}

    def group(*axes):
        lane = [r for r in range(24) if all(r // strides[a] % AXES[a] == at[a] for a in AXES if a not in axes)]
        return tuple(lane)

    module = ModuleType("rank")
    module.RANK, module.AXES, module.COORDINATES, module.SLICES = rank, AXES, at, {}
    module.GROUPS = {"dp": group("dp"), "dp_ep": group("dp", "ep"), "tied": group("pp", "dp", "ep"), "tp": group("tp")}
    module.PREVIOUS, module.NEXT = (rank - 12, None) if at["pp"] else (None, rank + 12)
    return module


def stage(index):
    module = ModuleType("stage")
    module.WEIGHTS = {"embed": EMBED, "layer": LAYER, "head": EMBED}
    layers = ("layer", (f"layers.{2 * index}", f"layers.{2 * index + 1}"))
    module.UNITS = (layers, ("head", ("",))) if index else (("embed", ("",)), layers)
    return module


def create(rank, dtype=torch.float64):
    return initialised(stage(rank // 12), rank_file(rank), dtype)


def initialised(module, rank, dtype, initial=None):
    weights = Weights.create(module, rank, dtype, "cpu")
    AdamW(weights, training()).initialise(initial or Initial(0))
    return weights


def whole(name, weight):
    return Initial(0)(name, weight.shape, weight.init, [slice(0, n) for n in weight.shape])


def test_slices_follow_the_coordinates_and_padding_is_zero():
    weights = create(3)  # dp 0, ep 1, tp 1
    (embed,), layers = weights
    assert weights["layer"][1] is weights[1][1] is layers[1] and len(weights) == 2
    assert layers[1].wq is weights.shards["layers.1.wq.weight"].value
    wq, up = whole("layers.1.wq.weight", LAYER["wq"]), whole("layers.1.experts.up", LAYER["up"])
    assert layers[1].wq.shape == (4, 6) and layers[1].wq[:3].equal(wq[4:]) and not layers[1].wq[3].any()
    assert layers[1].up.shape == (2, 3, 4) and layers[1].up[:, :2].equal(up[2:4, 3:]) and not layers[1].up[:, 2].any()
    assert layers[0].both.equal(whole("layers.0.both.weight", LAYER["both"])[12:16])
    assert embed.tokens.shape == (5, 4) and embed.tokens[:4].equal(whole("embed.weight", EMBED["tokens"])[5:])


def test_gradients_are_views_of_one_buffer_a_family_in_an_order_that_the_group_shares():
    first, other = create(0), create(6)
    assert [family.reduce for family in first.families] == ["dp", "dp_ep", "tied"]
    for mine, theirs in zip(first.families, other.families, strict=True):
        assert mine.gradients.shape == theirs.gradients.shape
    for name, shard in first.shards.items():
        offset = shard.value.grad.data_ptr() - first.families[0].gradients.data_ptr()
        if shard.weight.reduce == "dp":
            theirs = other.shards[name].value.grad.data_ptr() - other.families[0].gradients.data_ptr()
            assert offset == theirs and offset % 64 == 0
    tied = [next(f for f in create(rank).families if f.reduce == "tied").gradients.shape for rank in (0, 12)]
    assert tied[0] == tied[1]


def test_every_logical_element_counts_once_in_the_norm():
    squares = 0.0
    for rank in range(24):
        weights = create(rank)
        for name, shard in weights.shards.items():
            where = tuple(slice(p.start, min(p.stop, n)) for p, n in zip(shard.where, shard.weight.shape, strict=True))
            shard.value.grad.fill_(100.0)  # padding too
            shard.value.grad[shard.inside] = whole(name, shard.weight)[where]
        weights.clear_padding()
        squares += AdamW(weights, training()).squared_norm()
    named = {f"layers.{i}.{weight.name}": weight for i in range(4) for weight in LAYER.values()}
    named["embed.weight"] = EMBED["tokens"]
    torch.testing.assert_close(squares, sum(whole(name, weight).square().sum() for name, weight in named.items()))


def test_a_weight_that_two_units_share_is_one_tensor():
    module = stage(0)
    module.UNITS = (("embed", ("",)), ("head", ("",)))
    weights = initialised(module, rank_file(0), torch.float32)
    assert weights["embed"][0].tokens is weights["head"][0].tokens and len(weights.shards) == 1


def test_a_buffer_is_no_parameter():
    module = stage(0)
    module.WEIGHTS = {"layer": {"mean": Weight("mean", (4,), ((),), "", "ones", trainable=False)}}
    module.UNITS = (("layer", ("layers.0",)),)
    weights = initialised(module, rank_file(0), torch.float32)
    mean = weights["layer"][0].mean
    assert not mean.requires_grad and mean.tolist() == [1.0] * 4 and weights.families == ()
    assert AdamW(weights, training()).squared_norm() == 0


def test_a_buffer_may_have_a_dtype_of_its_own():
    module = stage(0)
    index = Weight("index", (4,), (("tp",),), "", "module", trainable=False, dtype=torch.int64)
    module.WEIGHTS, module.UNITS = {"layer": {"index": index}}, (("layer", ("layers.0",)),)
    initial = Initial(0, lambda name, shape, init, where: torch.arange(4.0, dtype=torch.float64)[where])
    weights = initialised(module, rank_file(1), torch.bfloat16, initial)
    assert weights["layer"][0].index.tolist() == [2, 3]


def training(clip=None, precision="fp64", decay=0.1):
    return Training(LearningRate(0.01), 0.9, 0.95, 1e-8, decay, clip, "stop", precision, 0)


@pytest.mark.parametrize("clip", [None, 0.5, 1e6])
def test_adamw_equals_that_of_torch(clip):
    weights = create(3)
    mine = AdamW(weights, training(clip))
    theirs = {name: torch.nn.Parameter(shard.value.detach().clone()) for name, shard in weights.shards.items()}
    plain = [theirs[name] for name, shard in weights.shards.items() if not shard.weight.decay]
    decayed = [theirs[name] for name, shard in weights.shards.items() if shard.weight.decay]
    groups = [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        for name, shard in weights.shards.items():
            gradient = torch.randn(shard.value.shape, generator=generator, dtype=torch.float64)
            shard.value.grad.copy_(gradient)
            theirs[name].grad = gradient
        norm = torch.nn.utils.clip_grad_norm_(theirs.values(), clip or float("inf"))
        optimizer.step()
        mine.step(norm.item(), 0.01)
        for name, shard in weights.shards.items():
            torch.testing.assert_close(shard.value.detach(), theirs[name].detach(), rtol=1e-12, atol=1e-14)
        weights.zero_gradients()


def test_bf16_updates_that_are_too_small_for_it_add_up():
    weights = create(3, torch.bfloat16)
    optimizer = AdamW(weights, training(precision="bf16", decay=0.0))
    wq = weights["layer"][0].norm
    for _ in range(100):
        for family in weights.families:
            family.gradients.fill_(1.0)
        optimizer.step(1.0, 1e-4)
    assert wq.dtype is torch.bfloat16 and wq.grad.dtype is torch.float32
    torch.testing.assert_close(wq.detach().float(), torch.full((6,), 0.99), rtol=0.004, atol=0)


def test_under_bf16_what_is_updated_begins_unrounded():
    weights = Weights.create(stage(0), rank_file(3), torch.bfloat16, "cpu")
    optimizer = AdamW(weights, training(precision="bf16"))
    optimizer.initialise(Initial(0))
    shard = weights.shards["layers.1.wq.weight"]
    begun = whole("layers.1.wq.weight", LAYER["wq"])[4:].float()
    assert optimizer.parts(shard)["weight"][:3].equal(begun) and not begun.bfloat16().float().equal(begun)
    assert shard.value.detach()[:3].equal(begun.bfloat16())


def test_the_clip_factor_is_that_of_torch():
    assert clip_factor(3.0, None) == clip_factor(0.1, 1.0) == 1.0 and clip_factor(4.0, 1.0) == pytest.approx(0.25, 1e-6)


def test_the_pipeline_axis_is_that_of_the_neighbours():
    def place(axes, previous, following):
        return Place(0, axes, dict.fromkeys(axes, 0), {}, previous, following)

    assert place({"pp": 2, "dp": 3, "tp": 2}, None, 6).pipeline == "pp"
    assert place({"dp": 3, "stage": 2, "tp": 2}, None, 2).pipeline == "stage"
    assert place({"dp": 1, "pp": 2, "tp": 1}, None, 1).pipeline == "pp"
    assert place({"dp": 3, "tp": 2}, None, None).pipeline is None


def test_a_slice_over_two_axes_has_the_first_as_the_major_one():
    at = Place(0, {"dp": 2, "ep": 3}, {"dp": 1, "ep": 2}, {}, None, None)
    assert at.part(12, ("dp", "ep")) == slice(10, 12) and at.part(12, ("ep", "dp")) == slice(10, 12)
    assert at.part(6, ("ep",)) == slice(4, 6) and at.part(5, ()) == slice(0, 5)
    places = [Place(0, {"a": 2, "b": 3}, {"a": a, "b": b}, {}, None, None) for a in (0, 1) for b in (0, 1, 2)]
    assert [place.index(("b", "a")) for place in places] == [0, 2, 4, 1, 3, 5]

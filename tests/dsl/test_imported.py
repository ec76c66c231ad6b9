"""What an imported model may say."""

import pytest

from moec.dsl.plan import Imported, Input, Pattern, Plan

NET = """
let side = 8
model net = python "nets.conv:Net" {
  width = 4 * side   depth = 3   rate = 0.5   bias = true   norm = "batch"
  small { width = 12 }
  inputs { image = float[batch, 3, 2 * width, side]   label = int[batch] < width   mask = int[batch, width] < 2 }
  weights { "stem.*" [channels, _]   "head.weight" [_, channels] }
}
mesh { x = 2  y = 2 }
shard { batch over x  channels over y }
schedule gpipe { batch = 16 }
"""


def model(plan: Plan) -> Imported:
    assert isinstance(plan.model, Imported)
    return plan.model


def test_arguments(read) -> None:
    net = model(read(NET))
    assert dict(net.arguments) == {"width": 32, "depth": 3, "rate": 0.5, "bias": True, "norm": "batch"}
    assert [type(value) for _, value in net.arguments] == [int, int, float, bool, str]
    assert net.small == (("width", 12),) and net.target == "nets.conv:Net" and net.data is None


def test_inputs_of_both_sizes(read) -> None:
    net = model(read(NET))
    assert net.inputs == (
        Input("image", "float", ("batch", 3, 64, 8), None),
        Input("label", "int", ("batch",), "width"),
        Input("mask", "int", ("batch", "width"), 2),
    )
    assert net.small_inputs[0].dims == ("batch", 3, 24, 8) and net.small_inputs[1:] == net.inputs[1:]


def test_weights(read) -> None:
    assert model(read(NET)).weights == (
        Pattern("stem.*", ("channels", None)),
        Pattern("head.weight", (None, "channels")),
    )


def test_title_is_optional(read) -> None:
    assert model(read(NET.replace("model net =", "model ="))) == model(read(NET))


def test_dims_follow_nothing(read) -> None:
    plan = read(NET.replace("channels", "heads").replace("[_, heads]", "[_, kv_heads]"))
    assert plan.axes_of("heads") == ("y",) and plan.axes_of("kv_heads") == ()


def test_layers_may_be_pipelined(read, codes) -> None:
    text = NET.replace("x = 2", "x = 2  z = 2").replace("batch over x", "batch over x  layers over z")
    assert read(text, "schedule.accumulate=2").pipeline_axis == "z"
    assert codes(text, "shard.layers=z, x") == ["E212"]


def test_an_argument_shards_if_it_is_a_dim_of_an_input(codes) -> None:
    assert codes(NET, "shard.width=y", "shard.channels=whole") == []
    assert codes(NET, "shard.width=y", "shard.channels=whole", "mesh.y=3") == ["E203"]
    assert codes(NET, "shard.depth=y") == ["E205"]


@pytest.mark.parametrize("target", ["", "net", "a.b", "a:b:c", "a b:c", ":c", "a:", "../a:b", "a;import os:b", "a:b()"])
def test_only_names_are_imported(codes, target: str) -> None:
    assert codes(NET.replace("nets.conv:Net", target)) == ["E305"]


def test_a_small_argument_that_leaves_no_size(codes) -> None:
    assert codes(NET.replace("2 * width", "width - 12")) == ["E110"]

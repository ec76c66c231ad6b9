"""--set puts a value in the place of the plan's, or where the plan is silent."""

from pathlib import Path

import pytest

from moec.dsl import Plan, read_plan
from moec.dsl.mesh import Axis
from moec.dsl.plan import Decoder, Imported


@pytest.fixture
def flagship(examples: Path):
    return lambda *overrides: read_plan(str(examples / "30b_moe.plan"), overrides)


def decoder(plan: Plan) -> Decoder:
    assert isinstance(plan.model, Decoder)
    return plan.model


def test_axis(flagship) -> None:
    assert flagship("mesh.tp=8").mesh.world_size == 1024


def test_several(flagship) -> None:
    plan = flagship("mesh.dp=64", "schedule.batch=8192")
    assert plan.mesh.world_size == 16_384 and plan.schedule.batch == 8192
    assert plan.overrides == ("mesh.dp=64", "schedule.batch=8192")


def test_the_last_counts(flagship) -> None:
    assert decoder(flagship("model.layers=32", "model.layers=64")).layers == 64


def test_inner_block(flagship) -> None:
    experts = decoder(flagship("model.experts.top_k=2", "model.experts.gated=true")).experts
    assert experts and (experts.top_k, experts.gated, experts.count) == (2, True, 64)


def test_setting_that_the_plan_does_not_write(flagship) -> None:
    assert flagship("train.seed=7", "train.clip=1.5").train.clip == 1.5
    assert decoder(flagship("model.tied=true")).tied


def test_block_that_the_plan_does_not_write(read, dense) -> None:
    assert read(dense, "train.precision=fp64").train.precision == "fp64"
    assert read(dense, "communicate.overlap=true").communicate.overlap
    assert read(dense, "hardware=h100").hardware.name == "h100"


def test_axes_of_a_dim(read, dense) -> None:
    text = dense.replace("heads, ffn, vocab over tp", "ffn over tp")
    assert read(text, "shard.heads=tp").axes_of("heads") == ("tp",)
    assert read(dense, "shard.heads=dp, tp").axes_of("heads") == ("dp", "tp")
    plan = read(dense, "shard.heads=whole")
    assert plan.axes_of("heads") == () and plan.axes_of("ffn") == ("tp",)


def test_bound(flagship) -> None:
    lower = flagship("require.memory=< 80 GiB").require[0]
    assert (lower.name, lower.relation, lower.bound) == ("memory", "<", 80 * 2**30)
    assert flagship("require.memory=80 GiB").require[0] == lower
    assert flagship("require.mfu=> 40 %").require[-1].relation == ">"


def test_arithmetic_and_names(read, dense) -> None:
    text = "let h = 64\n" + dense.replace("hidden = 64", "hidden = h").replace("ffn = 128", "ffn = 4 * h")
    assert decoder(read(text, "model.ffn=h * 3")).ffn == 192
    changed = decoder(read(text, "h=32"))
    assert (changed.hidden, changed.ffn) == (32, 128)


def test_schedule(flagship) -> None:
    assert flagship("schedule=gpipe").schedule.kind == "gpipe"
    assert flagship("schedule=1f1b").schedule.kind == "1f1b"


def test_size_of_a_fold_leaves_it_a_fold(examples: Path) -> None:
    path = str(examples / "sequence_parallel.plan")
    assert read_plan(path, ["mesh.ep=8"]).mesh.axis("ep") == Axis("ep", 8, ("dp", "tp"))
    assert read_plan(path, ["mesh.ep=2 over tp"]).mesh.atoms_of("ep") == ("tp",)


def test_imported_model(examples: Path) -> None:
    overrides = ["model.blocks=2", "model.small.width=14", 'model.data=python "other:data"']
    model = read_plan(str(examples / "mixer_moe.plan"), overrides).model
    assert isinstance(model, Imported)
    assert dict(model.arguments)["blocks"] == 2 and dict(model.small)["width"] == 14 and model.data == "other:data"


def test_axis_of_size_one_may_split_nothing(read, dense, codes) -> None:
    text = dense.replace("batch over dp", "")
    assert codes(text) == ["E204"]
    assert read(text, "mesh.dp=1").mesh.world_size == 4


@pytest.mark.parametrize(
    "override",
    ["", "=", "mesh", "mesh.tp", "mesh.tp=", ".tp=2", "mesh..tp=2", "a.b.c.d.e=1", "1x=2", "mesh.tp 2", "tp=4"],
)
def test_no_override(codes, dense, override: str) -> None:
    assert codes(dense, override) == ["E114"]


@pytest.mark.parametrize("value", ["}", "(", "2 3", "4 over", '"', "\x00", "é", "[", "1+", "over tp"])
def test_no_value(codes, dense, value: str) -> None:
    assert codes(dense, f"mesh.tp={value}")


def test_all_faulty_overrides_are_told_together(codes, dense) -> None:
    assert len(codes(dense, "mesh.tp", "mesh.ep=2", "nope.x=1")) == 3

"""Where dims go: followers, folds, and what an axis may not do."""

import pytest

from moec.dsl.plan import Plan

SPARSE = """
model m {
  layers = 4  hidden = 64  heads = 8  kv_heads = 4  vocab = 256  seq = 64
  experts { count = 8  hidden = 96  top_k = 2 }
}
mesh { dp = 4  tp = 2  ep = 4 over dp, tp }
shard { batch over dp  heads, vocab over tp  experts over ep }
schedule gpipe { batch = 16 }
"""


def axes(plan: Plan, *dims: str) -> list[tuple[str, ...]]:
    return [plan.axes_of(dim) for dim in dims]


def test_a_dim_without_a_line_is_whole(read) -> None:
    assert axes(read(SPARSE), "seq", "hidden", "layers", "choices") == [(), (), (), ()]


def test_key_value_heads_follow_heads(read) -> None:
    assert axes(read(SPARSE), "heads", "kv_heads") == [("tp",), ("tp",)]
    assert axes(read(SPARSE, "shard.kv_heads=whole"), "heads", "kv_heads") == [("tp",), ()]


def test_experts_over_a_fold(read) -> None:
    assert axes(read(SPARSE), "batch", "experts") == [("dp.0", "dp.1"), ("dp.1", "tp")]


def test_the_experts_hidden_follows_ffn(read) -> None:
    text = SPARSE.replace("experts over ep", "experts over dp  ffn over tp").replace("  ep = 4 over dp, tp", "")
    assert axes(read(text), "experts", "expert_ffn") == [("dp",), ("tp",)]


def test_a_follower_leaves_what_the_experts_take(read, codes) -> None:
    assert axes(read(SPARSE, "shard.ffn=tp"), "ffn", "expert_ffn") == [("tp",), ()]
    assert axes(read(SPARSE, "shard.ffn=dp", "mesh.ep=2 over tp"), "expert_ffn") == [("dp",)]
    assert axes(read(SPARSE, "shard.ffn=dp, tp"), "expert_ffn") == [("dp.0",)]
    assert codes(SPARSE, "shard.expert_ffn=tp") == ["E207"]


def test_only_what_is_split_has_to_divide(codes) -> None:
    assert codes(SPARSE, "mesh.tp=1", "mesh.ep=4 over dp", "model.kv_heads=1", "model.experts.hidden=97") == []


def test_vocab_is_padded_and_layers_may_be_uneven(codes, dense) -> None:
    assert codes(dense, "model.vocab=257", "model.layers=5") == []


@pytest.mark.parametrize("dim", ["heads", "kv_heads", "ffn", "seq"])
def test_other_dims_divide(codes, dense, dim: str) -> None:
    size = {"heads": 4, "kv_heads": 4, "ffn": 126, "seq": 66}[dim]
    assert "E203" in codes(dense, f"model.{dim}={size}", f"shard.{dim}=tp", "mesh.tp=8")


def test_batch_and_stages(codes, dense) -> None:
    assert codes(dense, "schedule.batch=24") == []
    assert codes(dense, "schedule.batch=20") == ["E214"]
    assert codes(dense, "mesh.pp=8") == ["E213"]


def test_a_mesh_of_ones(read, dense) -> None:
    plan = read(dense, "mesh.pp=1", "mesh.dp=1", "mesh.tp=1")
    assert plan.mesh.world_size == 1 and not plan.warnings

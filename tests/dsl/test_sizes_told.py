"""What a message lists as sizes that work does work."""

import re
from collections.abc import Callable

import pytest

from moec.dsl import PlanError

PLAN = """
model m {
  layers = 4  hidden = 96  heads = 12  kv_heads = 6  head_dim = 8  ffn = 90  vocab = 256  seq = 60
  experts { count = 20  hidden = 70  top_k = 2  every = 2 }
}
mesh { dp = 1  tp = 7 }
shard { batch over dp  vocab over tp }
schedule gpipe { batch = 24  accumulate = 4 }
"""

DIMS = ("heads", "kv_heads", "ffn", "seq", "hidden", "experts", "choices", "expert_ffn")


def told(read: Callable[..., object], *overrides: str) -> dict[str, tuple[str, ...]]:
    """The help of each fault by its code and headline."""
    try:
        read(PLAN, *overrides)
    except PlanError as fault:
        return {f"{each.code} {each.headline}": each.help for each in fault.diagnostics}
    return {}


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("axes", ["tp", "tp, dp", "dp, tp"])
def test_sizes_of_axes(read, dim: str, axes: str) -> None:
    start = (f"shard.{dim}={axes}", "mesh.tp=11", "mesh.dp=2" if "," in axes else "mesh.dp=1")
    (help,) = (help for fault, help in told(read, *start).items() if f"E203 `{dim}`" in fault)
    sizes = re.findall(r"\d+", help[-1].rpartition(":")[2])
    assert len(sizes) > 1
    for size in sizes:
        faults = told(read, *start, f"mesh.tp={size}", "mesh.dp=1")
        assert not any(f"E203 `{dim}`" in fault for fault in faults), size


def test_numbers_of_heads_that_divide_hidden(read) -> None:
    text = PLAN.replace("  kv_heads = 6  head_dim = 8", "")
    with pytest.raises(PlanError) as caught:
        read(text, "model.heads=7", "mesh.tp=1")
    (fault,) = caught.value.diagnostics
    counts = re.findall(r"\d+", fault.help[-1].rpartition(":")[2])
    assert fault.code == "E302" and len(counts) > 3
    for count in counts:
        read(text, f"model.heads={count}", "mesh.tp=1")


@pytest.mark.parametrize(
    ("overrides", "code", "line", "path"),
    [
        (("model.kv_heads=5",), "E301", 0, "model.kv_heads"),
        (("mesh.dp=5",), "E214", 0, "schedule.batch"),
        (("schedule.accumulate=5",), "E214", 0, "schedule.batch"),
        (("schedule.accumulate=5",), "E214", 1, "schedule.accumulate"),
    ],
)
def test_other_lists(read, overrides: tuple[str, ...], code: str, line: int, path: str) -> None:
    faults = told(read, *overrides, "mesh.tp=1")
    (help,) = (help for fault, help in faults.items() if fault.startswith(code))
    sizes = re.findall(rf"{path.rpartition('.')[2]} = (\d+)", help[line]) or re.findall(
        r"\d+", help[line].rpartition(":")[2]
    )
    assert sizes
    for size in sizes:
        assert not told(read, *overrides, "mesh.tp=1", f"{path}={size}"), size

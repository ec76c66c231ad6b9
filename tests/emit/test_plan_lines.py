"""The plan's lines that an instruction's group comes from, against the plan's text."""

import re

import pytest

from moec.compiler.emit.plan_lines import plan_lines
from moec.compiler.pipeline import compile_plan
from moec.dsl import read_plan


@pytest.mark.parametrize(
    ("name", "overrides", "groups"),
    [
        ("tiny_moe", (), {"ep": "ep", "tp": "tp"}),
        ("sequence_parallel", (), {"dp": "dp|ep", "dp0": "dp", "dp_tp": "dp|ep|tp", "ep": "dp|ep|tp", "tp": "ep|tp"}),
    ],
)
def test_groups_come_from_the_lines_over_their_axes(name, overrides, groups):
    """`sequence_parallel` folds `ep` over all of tp and the fast half of dp: what is over dp may be over ep, too."""
    path = f"examples/{name}.plan"
    with open(path, encoding="utf-8") as file:
        text = file.read().split("\n")
    found = plan_lines(compile_plan(read_plan(path, list(overrides))))
    over = {n: line.partition(" over ")[2] for n, line in enumerate(text, 1) if " over " in line and "mesh" not in line}
    expected = {
        group: [n for n, axes in over.items() if re.search(rf"\b({names})\b", axes)] for group, names in groups.items()
    }
    assert found["groups"] == expected
    assert found["stages"] == [n for n, axes in over.items() if re.search(r"\bpp\b", axes)]
    assert found["file"] == f"{name}.plan" and all(text[n - 1].startswith("model ") for n in found["model"])

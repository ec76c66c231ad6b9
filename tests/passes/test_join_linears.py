"""Which matrices become one product."""

from pathlib import Path

import pytest

from moec.compiler.pipeline import compile_plan
from moec.dsl import read_plan

FANS = """
model fans = python "odd_modules:Fans" {
  width = 8   inner = 12   layers = 4   rows = 6
  small { width = 10   inner = 6   rows = 4 }
  inputs { x = float[batch, rows, width]   label = int[batch] < 5 }
  weights { "*.up.weight" [inner, _]   "*.up.bias" [inner]   "*.down.weight" [_, inner] }
}
mesh { pp = 2   dp = 2   tp = 3 }
shard { layers over pp   batch over dp   inner over tp }
schedule 1f1b { batch = 16   accumulate = 4 }
"""

DECODER = """
model small {
  layers = 2   hidden = 16   heads = 4   kv_heads = 2   vocab = 32   seq = 8   ffn = 24   gated = true
}
mesh { dp = 3   tp = 2 }
shard { batch over dp   heads, ffn, vocab over tp   HERE }
schedule gpipe { batch = 6 }
"""


def stacks(folder: Path, text: str, unit: str) -> set[tuple[str, ...]]:
    """Names of the weights that are read as one, in one unit of a plan's program."""
    path = folder / "joined.plan"
    path.write_text(text)
    described = compile_plan(read_plan(path)).units[unit]
    names = {parameter.value: parameter.name for parameter in described.parameters}
    return {tuple(names[part] for part in stack.parts) for stack in described.stacked}


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "equivalence")


def test_only_alike_ones_whose_results_may_lie_apart(tmp_path: Path) -> None:
    """`up` is split over tp, `merged` is viewed otherwise, `frozen` is not trained, `again` is used twice."""
    assert stacks(tmp_path, FANS, "layer") == {
        ("short.weight", "gate.weight"),
        ("short.bias", "gate.bias"),
        ("first.weight", "second.weight", "third.weight"),
    }


def test_queries_keys_and_values_and_a_gate(tmp_path: Path) -> None:
    assert stacks(tmp_path, DECODER.replace("HERE", ""), "layer") == {
        ("attn.wq.weight", "attn.wk.weight", "attn.wv.weight"),
        ("ffn.up.weight", "ffn.gate.weight"),
    }

"""Modules of a user's own are computed as they are, or refused with a code; nothing else comes out."""

import inspect
from pathlib import Path

import odd_modules
import pytest
from torch import nn

from moec.compiler.pipeline import compile_plan
from moec.compiler.verify import verify
from moec.dsl import PlanError, read_plan

ODD = [
    name
    for name, kind in vars(odd_modules).items()
    if isinstance(kind, type) and issubclass(kind, nn.Module) and "label" in inspect.signature(kind.forward).parameters
]
"""Every module of odd_modules.py that is a whole model of x and label."""

REFUSED = {
    "BatchNorm",
    "BatchStatistics",
    "ByCount",
    "Constant",
    "CountedByWeight",
    "Counter",
    "DataDependent",
    "Dictionary",
    "Dropout",
    "Encoder",
    "Heads",
    "Lifted",
    "NoGradient",
    "NoLoss",
    "NoRule",
    "NonZero",
    "NumPy",
    "Raises",
    "Reassigned",
    "Recurrent",
    "TiedLayers",
    "WithoutGradient",
}
"""Those that cannot be split over ranks, or that say something about one step only."""

SPLIT = (
    "Plain SumAndCount Skip UNet Twice Around WithKeywords Split Smoothed Weighted Probabilities Each Binary Shifted "
    "Squeezed Padded Given HalfFrozen Vector Fans Mixed Counted "
    "CountedByMask CountedTwice Written Made Bends "
    "Sequence InDict Focal"
).split()
"""Those whose layers have an inner dim, which is split."""

INNER = '"*.up.weight" [inner, _]   "*.up.bias" [inner]   "*.down.weight" [_, inner]'

PLAN = """
model odd = python "odd_modules:{module}" {{
  width = 8   inner = 12   layers = 4   rows = 6
  small {{ width = 10   inner = 6   rows = 4 }}
  inputs {{ {inputs} }}
  {weights}
}}
mesh {{ {mesh} }}
shard {{ {shard} }}
schedule 1f1b {{ batch = 16   accumulate = 4 }}
train {{ lr = 1e-2   clip = 0.5 }}
"""

SAMPLES = "x = float[batch, rows, width]   label = int[batch] < 5"


def equal(folder: Path, module: str, mesh: str, shard: str, inputs: str = SAMPLES, weights: str = "") -> bool:
    """Whether the programs compute what the module does; PlanError if the plan is refused."""
    path = folder / "odd.plan"
    weights = f"weights {{ {weights} }}" if weights else ""
    path.write_text(PLAN.format(module=module, mesh=mesh, shard=shard, inputs=inputs, weights=weights))
    plan = read_plan(path)
    verdict = verify(plan, compile_plan(plan), None)
    assert verdict.equal, "\n".join(verdict.faults)
    return True


@pytest.mark.parametrize("module", ODD)
def test_samples_and_stages(module: str, tmp_path: Path) -> None:
    try:
        equal(tmp_path, module, "pp = 2   dp = 2", "layers over pp   batch over dp")
    except PlanError as refusal:
        assert module in REFUSED, str(refusal)
        assert all(fault.code.startswith("E") and fault.headline for fault in refusal.diagnostics)


@pytest.mark.parametrize("module", SPLIT)
def test_inner_dims(module: str, tmp_path: Path) -> None:
    shard = "layers over pp   batch over dp   inner over tp"
    assert equal(tmp_path, module, "pp = 2   dp = 2   tp = 2", shard, weights=INNER)


AWKWARD = {
    "rows split": ("y = 4   r = 2", "batch over y   rows over r", ""),
    "samples and inner dims over one axis": ("r = 2", "batch, inner over r", INNER),
    "width of all": ("a = 2   b = 3", "width over a   inner over b", '"*.weight" [_, width]   "*.up.bias" [inner]'),
}


@pytest.mark.parametrize("module", SPLIT)
@pytest.mark.parametrize("mesh, shard, weights", AWKWARD.values(), ids=AWKWARD)
def test_awkward_meshes(mesh: str, shard: str, weights: str, module: str, tmp_path: Path) -> None:
    assert equal(tmp_path, module, mesh, shard, weights=weights)


def test_rows_whose_gradients_are_alike(tmp_path: Path) -> None:
    assert equal(tmp_path, "Softened", "y = 4   r = 2", "batch over y   rows over r")


STAGES = ("pp = 2   dp = 2", "layers over pp   batch over dp")


@pytest.mark.parametrize("mesh, shard", [("tp = 2", "batch over tp"), STAGES])
def test_tied(mesh: str, shard: str, tmp_path: Path) -> None:
    inputs = "text = int[batch, rows] < 12   answer = int[batch, rows] < 12"
    assert equal(tmp_path, "Tied", mesh, shard, inputs)

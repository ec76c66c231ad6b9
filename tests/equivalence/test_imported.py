"""Modules of a user's own are computed as they are, or refused with a code; nothing else comes out."""

import inspect
from collections.abc import Mapping
from pathlib import Path

import odd_modules
import pytest
from torch import nn

from moec.compiler.build_model import build_model
from moec.compiler.pipeline import PASSES, compile_plan
from moec.compiler.program import Program
from moec.compiler.split_model import split_model
from moec.compiler.trace import Traced, trace
from moec.compiler.verify import verify
from moec.dsl import Plan, PlanError, read_plan

ODD = [
    name
    for name, kind in vars(odd_modules).items()
    if isinstance(kind, type) and issubclass(kind, nn.Module) and "label" in inspect.signature(kind.forward).parameters
]
"""Every module of odd_modules.py that is a whole model of x and label."""

REFUSED = {
    "Adding",
    "ApproximateBySize",
    "BySize",
    "Hooked",
    "HookedGradient",
    "WrittenArgument",
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
    "Scaled",
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

STAGES = ("pp = 2   dp = 2", "layers over pp   batch over dp")

SAMPLES = "x = float[batch, rows, width]   label = int[batch] < 5"


def plan_of(folder: Path, module: str, mesh: str, shard: str, inputs: str = SAMPLES, weights: str = "") -> Plan:
    path = folder / "odd.plan"
    weights = f"weights {{ {weights} }}" if weights else ""
    path.write_text(PLAN.format(module=module, mesh=mesh, shard=shard, inputs=inputs, weights=weights))
    return read_plan(path)


def equal(plan: Plan, program: Program | None = None) -> bool:
    """Whether the programs compute what the module does; PlanError if the plan is refused."""
    verdict = verify(plan, program or compile_plan(plan))
    assert verdict.equal, "\n".join((plan.source.text, *verdict.faults))
    return True


@pytest.mark.parametrize("module", sorted(set(ODD) - set(SPLIT)))
def test_samples_and_stages(module: str, tmp_path: Path) -> None:
    try:
        equal(plan_of(tmp_path, module, *STAGES))
    except PlanError as refusal:
        assert module in REFUSED, str(refusal)
        assert all(fault.code.startswith("E") and fault.headline for fault in refusal.diagnostics)


MESHES = {
    "samples and stages": (*STAGES, ""),
    "inner dims": ("pp = 2   dp = 2   tp = 2", "layers over pp   batch over dp   inner over tp", INNER),
}

AWKWARD = {
    "rows split": ("y = 2   r = 2", "batch over y   rows over r", ""),
    "samples and inner dims over one axis": ("r = 2", "batch, inner over r", INNER),
    "width of all": ("a = 2   b = 3", "width over a   inner over b", '"*.weight" [_, width]   "*.up.bias" [inner]'),
}


@pytest.mark.parametrize("module", SPLIT)
def test_meshes(module: str, tmp_path: Path) -> None:
    """Each module on one awkward mesh, each of these with a third of the modules."""
    awkward = [*AWKWARD][SPLIT.index(module) % len(AWKWARD)]
    equal_on(MESHES | {awkward: AWKWARD[awkward]}, module, tmp_path)


@pytest.mark.sweep
@pytest.mark.parametrize("module", SPLIT)
def test_awkward_meshes(module: str, tmp_path: Path) -> None:
    equal_on(AWKWARD, module, tmp_path)


def equal_on(meshes: Mapping[str, tuple[str, str, str]], module: str, folder: Path) -> None:
    """Where sizes are the same on several meshes, one trace speaks for them."""
    traces: dict[str, Traced] = {}
    for mesh, shard, weights in meshes.values():
        plan = plan_of(folder, module, mesh, shard, weights=weights)
        model = build_model(plan)
        sizes = repr((model.sizings, model.inputs))
        if sizes not in traces:
            traces[sizes] = trace(model)
        program = split_model(plan, model, traces[sizes])
        for apply in PASSES:
            program = apply(program)
        assert equal(plan, program)


def test_rows_whose_gradients_are_alike(tmp_path: Path) -> None:
    assert equal(plan_of(tmp_path, "Softened", "y = 4   r = 2", "batch over y   rows over r"))


@pytest.mark.parametrize("mesh, shard", [("tp = 2", "batch over tp"), STAGES])
def test_tied(mesh: str, shard: str, tmp_path: Path) -> None:
    inputs = "text = int[batch, rows] < 12   answer = int[batch, rows] < 12"
    assert equal(plan_of(tmp_path, "Tied", mesh, shard, inputs))

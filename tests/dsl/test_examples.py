"""The examples are plans, and the flagship says what it says."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from moec.dsl import read_plan
from moec.dsl.plan import Decoder, Imported

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.plan"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_reads(path: Path) -> None:
    plan = read_plan(str(path))
    assert plan.name == path.stem
    assert {warning.code for warning in plan.warnings} <= {"W001"}


def test_flagship(examples: Path) -> None:
    plan = read_plan(str(examples / "30b_moe.plan"))
    model = plan.model
    assert isinstance(model, Decoder) and model.experts
    assert (model.layers, model.hidden, model.heads, model.kv_heads, model.head_dim) == (16, 2048, 16, 16, 128)
    assert (model.vocab, model.seq, model.ffn) == (32_000, 4096, None)
    assert (model.experts.count, model.experts.hidden, model.experts.capacity) == (64, 7168, Fraction(11, 10))
    assert plan.mesh.world_size == 512
    assert [atom.name for atom in plan.mesh.atoms] == ["pp", "dp", "ep", "tp"]
    assert plan.pipeline_axis == "pp"
    assert (plan.schedule.kind, plan.schedule.batch, plan.schedule.accumulate) == ("1f1b", 256, 8)
    assert (plan.train.precision, plan.train.recompute, plan.train.lr) == ("bf16", "selective", 3e-4)
    assert [require.name for require in plan.require][:2] == ["memory", "latency"]
    assert plan.require[0].bound == 10 * 2**30 and plan.require[3].bound == Fraction(1, 2)


def test_flagship_has_thirty_billion_parameters(examples: Path) -> None:
    model = read_plan(str(examples / "30b_moe.plan")).model
    assert isinstance(model, Decoder) and model.experts
    experts = 2 * model.experts.count * model.experts.hidden * model.hidden
    attention = 4 * model.hidden * model.heads * model.head_dim
    assert 28.5e9 < model.layers * (experts + attention) + 2 * model.vocab * model.hidden < 31.5e9


def test_imported(examples: Path) -> None:
    model = read_plan(str(examples / "mixer_moe.plan")).model
    assert isinstance(model, Imported)
    assert model.target == "mixer_moe:Mixer" and model.data == "mixer_moe:backwards"
    assert dict(model.small).keys() <= dict(model.arguments).keys()


def test_reading_needs_no_torch(examples: Path) -> None:
    program = "import sys; from moec.dsl import read_plan; read_plan(sys.argv[1]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program, str(examples / "30b_moe.plan")]).returncode == 0

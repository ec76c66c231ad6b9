"""The state of a job, saved on one mesh and read on another, against a plain reader and a plain training."""

import shutil

import numpy
import pytest
import torch
from plain import read_plainly, save, trained
from plain_model import plain_training

from moec.checkpoint.damage import Damage
from moec.checkpoint.verify import faults_of
from moec.runtime.checkpoint.read import Checkpoint
from moec.runtime.checkpoint.restore import check_model

MESHES = ((2, 1), (1, 3), (3, 2), (1, 1))  # dp and tp; 7 rows over 3 and 2 are padded


@pytest.mark.parametrize("precision", ["fp64", "bf16"])
def test_each_element_is_written_once(tiny, tmp_path, precision):
    made = tiny(3, 2, precision)
    runs, _ = trained(made, 2)
    step = save(made, runs, tmp_path / "ck")
    state = read_plainly(step)
    assert state.tensors.keys() == {
        f"{part}/{name}" for part in ("weight", "mean", "square") for name in made.job.weights
    }
    assert all((times == 1).all() for times in state.times.values())
    dtype = {"fp64": numpy.float64, "bf16": numpy.float32}[precision]
    assert all(x.dtype == dtype for x in state.tensors.values())
    assert list(faults_of(step)) == []
    for run in runs:  # every rank's own copy, also one that it does not write
        for name, shard in run.weights.shards.items():
            where = tuple(
                slice(part.start, min(part.stop, n)) for part, n in zip(shard.where, shard.weight.shape, strict=True)
            )
            written = torch.from_numpy(state.tensors[f"weight/{name}"][where].copy())
            assert written.to(shard.value.dtype).equal(shard.value.detach()[shard.inside]), name


def test_what_is_written_is_what_a_plain_training_comes_to(tiny, tmp_path):
    made = tiny(2, 2)
    runs, _ = trained(made, 3)
    state = read_plainly(save(made, runs, tmp_path / "ck"))
    _, weights, moments = plain_training(made.job, made.source, 1.0, 3)
    for name, weight in weights.items():
        expected = {"weight": weight, **moments[name]}
        for part, key in (("weight", "weight"), ("mean", "exp_avg"), ("square", "exp_avg_sq")):
            found = torch.from_numpy(state.tensors[f"{part}/{name}"])
            torch.testing.assert_close(found, expected[key], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("precision", ["fp64", "bf16"])
def test_any_mesh_reads_what_any_other_wrote(tiny, tmp_path, precision):
    """Bit for bit; and goes on as the run that never stopped."""
    first = tiny(*MESHES[0], precision)
    runs, _ = trained(first, 2)
    before = read_plainly(save(first, runs, tmp_path / "0"))
    _, whole = trained(first, 5)
    for i, mesh in enumerate(MESHES[1:]):
        made = tiny(*mesh, precision)
        runs, losses = trained(made, 3, tmp_path / str(i))
        torch.testing.assert_close(losses, whole[2:], rtol=1e-12 if precision == "fp64" else 2e-2, atol=0.0)
        runs, _ = trained(made, 0, tmp_path / str(i))
        assert [(run.step, run.cursor, run.optimizer.updates) for run in runs] == [(2, 24, 2)] * len(runs)
        after = read_plainly(save(made, runs, tmp_path / str(i + 1)))
        assert after.tensors.keys() == before.tensors.keys()
        for key, x in before.tensors.items():
            assert numpy.array_equal(x.view(numpy.uint8), after.tensors[key].view(numpy.uint8)), (mesh, key)
            assert (after.times[key] == 1).all()


def test_a_rank_reads_its_own_part(tiny, tmp_path):
    made = tiny(1, 3)
    runs, _ = trained(made, 1)
    folder = save(made, runs, tmp_path / "ck")
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    from moec.runtime.checkpoint.restore import restore

    read = []

    def program(_, run):
        with Checkpoint.open(folder) as checkpoint:
            restore(run, checkpoint)
            read.append(set(checkpoint.files._open))

    made.simulate(program)
    assert set.union(*read) == {path.name for path in folder.glob("*.safetensors")}
    assert all(len(names) < 6 for names in read)


def test_another_model_is_refused_with_all_that_differs(tiny, tmp_path):
    made = tiny(1, 1)
    runs, _ = trained(made, 0)
    folder = save(made, runs, tmp_path / "ck")
    text = (made.folder / "plan.json").read_text()
    (made.folder / "plan.json").write_text(
        text.replace("layers.1.up.weight", "layers.1.upper.weight").replace("[11, 6]", "[12, 6]")
    )
    with Checkpoint.open(folder) as checkpoint, pytest.raises(Damage) as caught:
        check_model(made.job, checkpoint)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{folder} is of another model than tiny"
    assert "  the checkpoint lacks: weight/layers.1.upper.weight [7, 6]" in lines
    assert "  the model has no: mean/layers.1.up.weight [7, 6]" in lines
    assert "  of another shape: weight/embed.weight [11, 6], not [12, 6]" in lines

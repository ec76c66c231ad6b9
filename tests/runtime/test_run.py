"""A whole job, all ranks in one process, against the same model under plain autograd."""

from dataclasses import dataclass
from math import isclose

import pytest
import torch
from plain_model import plain_training

from moec.runtime.data import Source
from moec.runtime.run import NotFinite, NothingValid

STEPS = 3


@dataclass(frozen=True)
class Masked:
    """A source without the labels that are below some number, so without any for the first samples of a step."""

    whole: Source
    below: int

    @property
    def fingerprint(self):
        return "masked"

    def sample(self, index):
        sample = self.whole.sample(index)
        kept = (sample["labels"] >= self.below) & (index % 12 > 2)
        return {**sample, "labels": sample["labels"].where(kept, -100)}


@pytest.mark.parametrize(("dp", "tp", "clip"), [(1, 1, None), (3, 2, 0.1), (2, 3, 10.0)])
@pytest.mark.parametrize("below", [0, 6])
def test_equals_plain_autograd(tiny, dp, tp, clip, below):
    made = tiny(dp, tp, clip=clip)
    source = Masked(made.source, below) if below else made.source

    def program(rank, run):
        results = []
        for _ in range(STEPS):
            rank.step(run)
            results.append((run.result.loss, run.result.gradient_norm))
        return results, [(shard.where, shard.inside, shard.value, name) for name, shard in run.weights.shards.items()]

    expected, weights, _ = plain_training(made.job, source, clip, STEPS)
    ranks = made.simulate(program, source)
    for results, shards in ranks:
        for (loss, norm), (true_loss, true_norm) in zip(results, expected, strict=True):
            assert isclose(loss, true_loss, rel_tol=1e-12) and isclose(norm, true_norm, rel_tol=1e-11)
        for where, inside, value, name in shards:
            whole = weights[name]
            mine = whole[
                tuple(slice(part.start, min(part.stop, n)) for part, n in zip(where, whole.shape, strict=True))
            ]
            torch.testing.assert_close(value.detach()[inside], mine, rtol=1e-11, atol=1e-12)
            outside = value.detach().clone()
            outside[inside] = 0
            assert not outside.any(), f"padding of {name} moved"


def test_bf16_sums_gradients_and_keeps_weights_in_float32(tiny):
    def program(rank, run):
        losses = []
        for _ in range(30):
            rank.step(run)
            losses.append(run.result.loss)
        for state in run.optimizer._states:
            assert state.master.dtype is state.block.gradients.dtype is torch.float32
            assert state.block.values.equal(state.master.bfloat16())
        return losses

    first, *others = tiny(2, 2, precision="bf16").simulate(program)
    assert all(losses == first for losses in others)
    assert sum(first[-5:]) < sum(first[:5]) - 0.2


def test_a_gradient_that_is_not_finite_stops_all_ranks_before_the_update(tiny):
    def program(rank, run):
        before = [family.values.clone() for family in run.weights.families]
        update = run.update

        def spoil():
            if rank.RANK == 2:
                run.weights.shards["layers.0.up.weight"].value.grad.view(-1)[0] = float("nan")
            update()

        run.update = spoil
        with pytest.raises(NotFinite) as caught:
            rank.step(run)
        assert all(a.equal(b.values) for a, b in zip(before, run.weights.families, strict=True))
        return str(caught.value)

    messages = tiny(2, 2).simulate(program)
    assert messages[2] == "step 1: the gradient of layers.0.up.weight is not finite"
    assert set(messages) - {messages[2]} == {"step 1: a loss or gradient of another rank is not finite"}


def test_a_step_without_valid_labels_stops_all_ranks_before_the_update(tiny):
    made = tiny(1, 2)

    def program(rank, run):
        before = [family.values.clone() for family in run.weights.families]
        with pytest.raises(NothingValid, match="step 1: no target of any micro-batch is valid"):
            rank.step(run)
        assert all(a.equal(b.values) for a, b in zip(before, run.weights.families, strict=True))

    made.simulate(program, Masked(made.source, 1000))


def test_a_loss_that_is_a_mean_is_divided_by_the_micro_batches(tiny):
    made = tiny(2, 1)
    edit(made.folder / "plan.json", '"loss": "sum"', '"loss": "mean"')
    for rank in range(4):
        edit(made.folder / f"rank_{rank:03d}.py", "    run.count_valid", "    pass  # ")
    edit(made.folder / "stage_1.py", 'reduction="sum")', 'reduction="mean") / 2')

    def program(rank, run):
        rank.step(run)
        return run.result.loss

    (loss, _), *_ = plain_training(made.job, made.source, None, 1)[0]
    assert all(isclose(found, loss, rel_tol=1e-12) for found in made.simulate(program))


def test_a_sum_that_was_not_counted_is_found(tiny):
    made = tiny(1, 1)
    for rank in (0, 1):
        edit(made.folder / f"rank_{rank:03d}.py", "    run.count_valid", "    pass  # ")
    with pytest.raises(AssertionError, match="the loss is a sum, but the step did not begin"):
        made.simulate(lambda rank, run: rank.step(run))


def test_a_slice_that_the_coordinates_do_not_give_is_refused(tiny):
    made = tiny(1, 2)
    path = made.folder / "rank_001.py"
    path.write_text(path.read_text().replace("[4:7, :]", "[0:4, :]"))
    with pytest.raises(ValueError, match=r"rank 1 states that layer.up is \[0:4, :\] of \[7, 6\]"):
        made.simulate(lambda rank, run: None)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))

"""The loss of held-out samples: that of plain autograd's model, on every mesh, and of no effect on training."""

from math import isclose

import pytest
import torch

from moec.runtime import routing
from moec.runtime.data import Documents, Sequences, Shuffled, Text
from moec.runtime.evaluate import Evaluation, held_out_loss
from moec.runtime.options import parse_options
from moec.runtime.run import NothingValid

BATCH = 12


def items(made):
    """A text in which not all labels count."""
    stream = Text.read_files([made.folder / "layer.py"], 11)
    return Sequences.of(stream, made.job.inputs, Documents(separator=2))


def train(made, evaluate, steps=3):
    """Of every rank: held-out losses, training losses, and all weights after the steps."""
    held_out = Evaluation(items(made), 2 * BATCH, 1, 9)

    def program(rank, run):
        said, losses = [], []
        for _ in range(steps):
            rank.step(run)
            losses.append((run.result.loss, run.result.gradient_norm))
            if evaluate:
                cursor = run.step, run.cursor
                said.append(held_out_loss(rank, run, held_out))
                assert (run.step, run.cursor) == cursor
        return said, losses, {name: shard.value.detach().clone() for name, shard in run.weights.shards.items()}

    return made.simulate(program, Shuffled(held_out.items, 7))


def test_training_goes_on_bit_for_bit_as_without_it(tiny):
    for dp, tp in ((2, 1), (1, 2)):
        made = tiny(dp, tp)
        for (said, losses, weights), (_, other, others) in zip(train(made, True), train(made, False), strict=True):
            assert len(set(said)) == 3 and losses == other
            assert all(x.equal(others[name]) for name, x in weights.items())


def test_it_is_the_loss_of_the_plain_model_on_every_mesh(tiny):
    """What training says of the same samples with the same weights is proved elsewhere, so it is what is held to."""
    found = []
    for dp, tp in ((1, 1), (3, 2), (2, 3)):
        made = tiny(dp, tp)
        source = items(made)

        def program(rank, run, source=source):
            pairs = []
            for _ in range(3):
                rank.step(run)
                # the samples of the next step, of which that step's loss speaks before it moves the weights
                ahead = Evaluation(Later(source, run.cursor), BATCH, 1, 9)
                pairs.append([held_out_loss(rank, run, ahead)])
                rank.step(run)
                pairs[-1].append(run.result.loss)
            return pairs

        ranks = made.simulate(program, source)
        assert all(pairs == ranks[0] for pairs in ranks)
        assert all(isclose(held_out, trained, rel_tol=1e-13) for held_out, trained in ranks[0])
        found.append([held_out for held_out, _ in ranks[0]])
    assert all(isclose(a, b, rel_tol=1e-12) for other in found for a, b in zip(found[0], other, strict=True))


class Later:
    """The items from one on."""

    fingerprint = "later"

    def __init__(self, whole, first):
        self.whole, self.first = whole, first

    def __len__(self):
        return len(self.whole) - self.first

    def sample(self, index):
        return self.whole.sample(self.first + index)


def test_it_is_a_mean_over_all_valid_targets_of_several_batches(tiny):
    made = tiny(1, 2)

    def program(rank, run):
        rank.step(run)
        one = [held_out_loss(rank, run, Evaluation(Later(items(made), BATCH * n), BATCH, 1, 9)) for n in range(2)]
        return one, held_out_loss(rank, run, Evaluation(items(made), 2 * BATCH, 1, 9))

    (one, both), *_ = made.simulate(program)
    valid = [sum(int((items(made).sample(k)["labels"] != -100).sum()) for k in range(n, n + BATCH)) for n in (0, BATCH)]
    assert valid[0] != valid[1] and 0 < min(valid) < 60 * BATCH
    expected = (one[0] * valid[0] + one[1] * valid[1]) / sum(valid)
    assert isclose(both, expected, rel_tol=1e-13) and one[0] != one[1]


def test_who_is_told_of_experts_is_told_again_afterwards(tiny):
    made = tiny(1, 1)

    def program(rank, run):
        rank.step(run)
        routing.watch(run.expert_load)
        held_out_loss(rank, run, Evaluation(items(made), BATCH, 1, 9))
        return routing.watching() is run.expert_load

    assert made.simulate(program) == [True, True]


def test_samples_none_of_which_counts(tiny):
    made = tiny(1, 1)

    class Nothing(Later):
        def sample(self, index):
            sample = super().sample(index)
            return {**sample, "labels": torch.full_like(sample["labels"], -100)}

    def program(rank, run):
        rank.step(run)
        with pytest.raises(NothingValid, match="no target of the held-out samples is valid"):
            held_out_loss(rank, run, Evaluation(Nothing(items(made), 0), BATCH, 1, 9))

    made.simulate(program)


def test_which_samples_and_when(tiny):
    made = tiny(1, 1)
    source = items(made)
    count = len(source)

    def evaluation(*arguments):
        return Evaluation.of(parse_options(made.job, ["--held-out", "0.5", *arguments]), source, BATCH)

    assert count % BATCH and count > 3 * BATCH
    assert evaluation("--eval-samples", str(10**9)).samples == count - count % BATCH
    assert [evaluation("--eval-samples", str(n)).samples for n in (1, 12, 23, 24)] == [12, 12, 12, 24]
    assert evaluation().samples == min(10 * BATCH, count - count % BATCH)
    due = evaluation("--eval-every", "5", "--steps", "12")
    assert [step for step in range(1, 13) if due.due(step)] == [5, 10, 12]

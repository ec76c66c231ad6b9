"""A step that is not finite is skipped where the plan says so: nothing but the step and the data goes on."""

import pytest
import torch

from moec.runtime.not_finite import trace
from moec.runtime.run import NotFinite


def skipping(tiny, dp, tp):
    made = tiny(dp, tp)
    path = made.folder / "plan.json"
    text = path.read_text()
    assert '"not_finite": "stop"' in text
    path.write_text(text.replace('"not_finite": "stop"', '"not_finite": "skip"'))
    return made


def spoil(rank, run, spoilt_steps, value=float("nan")):
    """A gradient of the last rank is no number in these steps."""
    update = run.update
    up = next(shard for name, shard in run.weights.shards.items() if name.endswith("up.weight"))

    def spoilt():
        if run.job.world_size - 1 == rank.RANK and run.step + 1 in spoilt_steps:
            up.value.grad.view(-1)[0] = value
        update()

    run.update = spoilt


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_state_stays_and_the_run_goes_on(tiny, value):
    def state(run):
        states = run.optimizer._states
        return [x.clone() for s in states for x in (s.master, s.block.values, s.mean, s.square, s.steps)]

    def program(rank, run):
        spoil(rank, run, {2}, value)
        rank.step(run)
        assert not run.result.skipped
        before = state(run)
        rank.step(run)
        assert run.result.skipped.startswith("step 2: ")
        assert (run.step, run.cursor, run.optimizer.updates) == (2, 24, 1)
        assert all(a.equal(b) for a, b in zip(before, state(run), strict=True))
        assert not any(family.gradients.any() for family in run.weights.families)
        rank.step(run)
        assert not run.result.skipped and run.optimizer.updates == 2
        assert not all(a.equal(b) for a, b in zip(before, state(run), strict=True))
        return run.result.loss, run.result.gradient_norm

    first, *others = skipping(tiny, 2, 2).simulate(program)
    assert all(result == first for result in others)


def test_it_is_as_if_the_step_had_not_been(tiny):
    """But for its data: a run whose second batch is the third comes to the same weights."""

    def with_a_skip(rank, run):
        spoil(rank, run, {2})
        for _ in range(3):
            rank.step(run)
        return [family.values.clone() for family in run.weights.families]

    def without(rank, run):
        rank.step(run)
        run.cursor += run.job.batch
        rank.step(run)
        return [family.values.clone() for family in run.weights.families]

    made = skipping(tiny, 1, 2)
    spoilt, plain = made.simulate(with_a_skip), made.simulate(without)
    assert all(a.equal(b) for left, right in zip(spoilt, plain, strict=True) for a, b in zip(left, right, strict=True))


def test_a_run_that_only_skips_stops_on_all_ranks(tiny):
    def program(rank, run):
        spoil(rank, run, range(3, 100))
        for _ in range(12):
            rank.step(run)
        assert run.optimizer.updates == 2
        with pytest.raises(NotFinite, match="the 10 steps before it were skipped, too"):
            rank.step(run)
        return run.step

    assert set(skipping(tiny, 1, 2).simulate(program)) == {12}


def test_skips_that_are_not_in_a_row_do_not_add_up(tiny):
    def program(rank, run):
        spoil(rank, run, range(2, 100, 2))
        for _ in range(30):
            rank.step(run)
        return run.optimizer.updates

    assert set(skipping(tiny, 1, 2).simulate(program)) == {15}


def test_the_rate_is_that_of_the_step_also_after_a_skip(tiny):
    made = skipping(tiny, 1, 1)
    path = made.folder / "plan.json"
    path.write_text(path.read_text().replace('"warmup": 0', '"warmup": 4'))

    def program(rank, run):
        spoil(rank, run, {2})
        rates = []
        for _ in range(5):
            rank.step(run)
            rates.append(run.result.rate)
        return rates

    for rates in made.simulate(program):
        torch.testing.assert_close(torch.tensor(rates), torch.tensor([0.25, 0.5, 0.75, 1.0, 1.0]) * 0.01)


def test_a_step_after_one_that_was_looked_into_is_that_of_a_run_that_was_not(tiny):
    """To name where a value came from, the skipped step is run again; nothing of it reaches the next."""

    def program(looks):
        def run_steps(rank, run):
            spoil(rank, run, {2})
            found = []
            for step in (1, 2, 3):
                rank.step(run)
                if step == 2 and looks:
                    trace(run, rank.step, rank.stage)
                found.append((run.result.loss, run.result.gradient_norm, run.result.skipped != ""))
            return found, [family.values.clone() for family in run.weights.families]

        return run_steps

    made = skipping(tiny, 2, 2)
    (plain, *_), (looked, *_) = made.simulate(program(False)), made.simulate(program(True))
    assert plain[0][1][2] and looked[0][1][2] and plain[0][2] == looked[0][2] and not plain[0][2][2]
    assert all(a.equal(b) for a, b in zip(plain[1], looked[1], strict=True))

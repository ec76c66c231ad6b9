"""What other practices change of a rank: never what is computed, but by how much it goes through memory and is kept."""

from dataclasses import replace
from pathlib import Path

import pytest
from compiled import compiled

from moec.compiler.cost.dry_run import Pass, Rank, dry_run
from moec.compiler.cost.kernels import Kernel
from moec.compiler.cost.practice import Practice
from moec.compiler.cost.practised import own_share, practised

PLAN = Path(__file__).parents[2] / "examples/sequence_parallel.plan"


@pytest.fixture(scope="module")
def rank() -> Rank:
    """With sequences over tp, and replicas."""
    return dry_run(compiled(PLAN))[0]


def flops(done: Pass) -> float:
    return sum(kernel.flops * times for kernel, times in _kernels(done))


def moved(done: Pass) -> int:
    return sum(kernel.moved * times for kernel, times in _kernels(done))


def _kernels(done: Pass) -> list[tuple[Kernel, int]]:
    return [
        (alive.event, segment.times)
        for segment in done.segments
        for alive in segment.events
        if isinstance(alive.event, Kernel)
    ]


def layers(done: Pass) -> Pass:
    return replace(done, segments=tuple(segment for segment in done.segments if segment.repeated))


def test_the_default_changes_nothing(rank: Rank):
    assert practised(rank, Practice()) is rank


def test_fused_kernels_compute_the_same_and_move_less(rank: Rank):
    fused = practised(rank, Practice(fused=True))
    for before, after in ((rank.forward, fused.forward), (rank.backward, fused.backward)):
        assert flops(after) == flops(before)
        assert moved(after) < moved(before)
    assert fused.forward.end <= rank.forward.end


def test_layers_that_are_computed_again_keep_their_input(rank: Rank):
    again = practised(rank, Practice(recompute="full"))
    assert flops(layers(again.backward)) == flops(layers(rank.backward)) + flops(layers(rank.forward))
    for segment in layers(again.forward).segments:
        last = segment.events[-1].event
        assert isinstance(last, Kernel)
        assert segment.growth == last.writes[-1][1]
    assert again.backward.end == pytest.approx(rank.backward.end)
    assert again.forward.end < rank.forward.end


def test_attention_that_is_computed_again_keeps_less(rank: Rank):
    again = practised(rank, Practice(recompute="attention"))
    assert again.forward.end < rank.forward.end
    assert flops(again.backward) > flops(rank.backward)
    assert again.backward.end == rank.backward.end


def test_what_is_gathered_again_is_not_kept(rank: Rank):
    kept = practised(rank, Practice(fused=True))
    again = practised(rank, Practice(fused=True, gathers_again=True))
    assert again.forward.end < kept.forward.end
    assert again.backward.end == kept.backward.end


def test_replicas_share_the_optimizer_s_state(rank: Rank):
    shared = practised(rank, Practice(sharded_state=2))
    assert 0.5 <= own_share(rank, Practice(sharded_state=2)) < 1
    assert shared.held.optimizer < rank.held.optimizer
    assert shared.held.weights == rank.held.weights

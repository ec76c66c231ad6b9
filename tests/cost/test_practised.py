"""What other practices change of a rank: never what is computed, but by how much it goes through memory and is kept."""

from dataclasses import replace
from pathlib import Path

import pytest
from compiled import compiled

from moec.compiler.cost.dry_run import Rank, dry_run
from moec.compiler.cost.kernels import Kernel
from moec.compiler.cost.links import collective_seconds
from moec.compiler.cost.liveness import free_early
from moec.compiler.cost.machine import machine_of
from moec.compiler.cost.pass_time import pass_time
from moec.compiler.cost.passes import Pass, Segment
from moec.compiler.cost.practice import Practice
from moec.compiler.cost.practised import own_share, practised
from moec.compiler.cost.recompute import Turn
from moec.compiler.cost.recorder import Alive
from moec.compiler.cost.sharded_weights import held_by, with_gathers
from moec.compiler.cost.step import spreads

MIXTURE = Path(__file__).parents[2] / "examples/tiny_moe.plan"
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


def test_of_operators_half_of_each_product_is_computed_again(rank: Rank):
    """All of which the backward reads: it is experts that end a layer, and their products are kept."""
    fused = practised(rank, Practice(fused=True))
    again = practised(rank, Practice(fused=True, recompute="operators"))
    more = flops(layers(again.backward)) - flops(layers(fused.backward))
    products = [
        [
            alive.event.flops
            for alive in segment.events
            if isinstance(alive.event, Kernel)
            if alive.event.kind == "product"
        ]
        for segment in layers(fused.forward).segments
    ]
    times = [segment.times for segment in layers(fused.forward).segments]
    assert more == sum(n * sum(each) / 2 for n, each in zip(times, products, strict=True)) > 0
    whole = practised(rank, Practice(fused=True, recompute="full"))
    assert whole.forward.end < again.forward.end < fused.forward.end
    assert again.backward.end == fused.backward.end


def test_some_layers_are_computed_again(rank: Rank):
    """Of a stage of eight layers four."""
    none, some, all_ = (
        practised(rank, Practice(fused=True, recompute=kind, recomputed_layers=count))
        for kind, count in (("none", 0), ("full", 4), ("full", 0))
    )
    assert sum(segment.times for segment in layers(rank.forward).segments) == 8
    assert flops(some.backward) - flops(none.backward) == (flops(all_.backward) - flops(none.backward)) / 2 > 0
    assert all_.forward.end < some.forward.end < none.forward.end
    assert some.backward.end == none.backward.end


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


def event(held: int, reads=(), writes=(), freed=()) -> Alive:
    sized = [tuple((number, 10**number) for number in numbers) for numbers in (reads, writes)]
    return Alive(Kernel("", "memory", 0.0, 0, reads=sized[0], writes=sized[1]), held, freed)


def test_weights_that_are_shared_out_are_gathered_for_every_pass(rank: Rank):
    program, machine = compiled(PLAN), machine_of(compiled(PLAN).plan)
    groups = spreads(program, rank, machine)
    passes = [pass_time(done, groups, machine, Practice()) for done in (rank.forward, rank.backward)]
    practice = Practice(sharded_state=64, sharded_weights=True)
    found = with_gathers((passes[0], passes[1]), rank, groups, machine, practice)
    gathers, scatters = [], []
    turns = sum(segment.times for segment in rank.forward.segments)
    for red in rank.reductions:
        group = groups[red.group]
        weights = red.size * rank.held.weights / rank.held.gradients
        gathers.append(turns * collective_seconds("all_gather", weights / group.ranks / turns, group, machine))
        scatters.append(turns * collective_seconds("reduce_scatter", red.size / turns, group, machine))
    more = [after.seconds - before.seconds for after, before in zip(found, passes, strict=True)]
    assert gathers and more == pytest.approx([sum(gathers), sum(gathers) + sum(scatters)])
    hidden = with_gathers((passes[0], passes[1]), rank, groups, machine, replace(practice, overlapped_gradients=True))
    for after, before, whole in zip(hidden, passes, more, strict=True):
        exposed = max(whole - before.seconds, whole / turns)
        assert after.seconds - before.seconds == pytest.approx(exposed) and exposed <= whole
    held = held_by(rank, practice)
    assert held.gradients < rank.held.gradients and held.weights <= rank.held.weights
    assert held_by(rank, Practice(sharded_state=64)) is rank.held


def test_what_is_read_no_more_ends():
    """Storage n has 10**n bytes. 1 is kept though the backward reads 2 alone; 4 outlives its use."""
    forward = (event(10, (), (1,)), event(110, (1,), (2,)), event(1110, (2,), (3,)), event(110, (2,), (), (3,)))
    backward = (
        event(10_110, (2,), (4,)),
        event(10_010, (4,), (), (2,)),
        event(10_010, (), ()),
        event(0, (), (), (1, 4)),
    )
    turn = Turn(Segment("", 1, forward, 110), Segment("", 1, backward, -110))
    # A backward's events count from what the forward leaves.
    turn = replace(turn, backward=replace(turn.backward, events=tuple(replace(e, held=e.held - 110) for e in backward)))
    found = free_early(turn)
    assert [alive.held for alive in found.forward.events] == [10, 110, 1100, 100]
    assert (found.forward.growth, found.backward.growth) == (100, -100)
    assert [alive.held for alive in found.backward.events] == [10_000, 9900, -100, -100]


def test_of_each_shape_of_a_layer_s_weights_a_tensor_stays(rank: Rank):
    fused, spare = (practised(rank, Practice(fused=True, spare_gradients=flag)) for flag in (False, True))
    shapes = {(kernel.sizes[1:3], kernel.itemsize) for kernel, _ in _kernels(layers(fused.backward)) if kernel.gradient}
    more = sum(rows * columns * itemsize for (rows, columns), itemsize in shapes)
    assert spare.held.gradients - rank.held.gradients == more > 0
    assert replace(spare, held=fused.held) == fused


def test_of_what_experts_send_back_nothing_is_kept():
    rank = dry_run(compiled(MIXTURE))[0]
    fused, early = (practised(rank, Practice(fused=True, weighs_early=flag)) for flag in (False, True))
    returned = max(alive.event.received for s in rank.forward.segments for alive in s.events if is_exchange(alive))
    turns = sum(segment.times for segment in layers(rank.forward).segments)
    assert fused.forward.end - early.forward.end >= turns * returned > 0
    assert early.backward.end == fused.backward.end


def is_exchange(alive: Alive) -> bool:
    return getattr(alive.event, "kind", "") == "all_to_all"

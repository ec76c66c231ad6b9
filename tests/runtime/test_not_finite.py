"""A value that is not finite is traced to the rank and the instruction that it came from, over all ranks of a job."""

import pytest
import torch.distributed as dist

from moec.runtime.not_finite import Origin, name_origin, trace
from moec.runtime.not_finite.origin import first_of
from moec.runtime.run import NotFinite

NAN = float("nan")


def spoilt(x):
    x = x.clone()
    x.view(-1)[0] = NAN
    return x


def origins(made, prepare):
    """What each rank traces of its second step, before which prepare(run) may spoil something of a rank."""

    def program(rank, run):
        rank.step(run)
        prepare(run)
        before = [shard.value.detach().clone() for shard in run.weights.shards.values()]
        with pytest.raises(NotFinite):
            rank.step(run)
        found = trace(run, rank.step, rank.stage)
        after = [shard.value.detach() for shard in run.weights.shards.values()]
        assert run.step == 1 and all(x.allclose(y, 0, 0, True) for x, y in zip(before, after, strict=True))
        return found

    return {rank: origin for rank, origin in enumerate(made.simulate(program)) if origin is not None}


def test_the_first_is_that_of_the_rank_that_made_it():
    arrived, came = Origin("arrived", "a", 0, ""), Origin("came", "b", 1, "")
    made, weight = Origin("made", "c", 2, ""), Origin("weight", "d", -1, "")
    assert first_of({}) is None
    assert first_of({0: arrived, 5: came}) == 5
    assert first_of({0: came, 3: arrived, 6: made, 7: made}) == 6
    assert first_of({1: made, 4: weight}) == 4
    assert first_of({2: arrived, 1: arrived}) == 1
    assert Origin.of(made.text) == made


@pytest.mark.parametrize("culprit", [0, 3, 5])
def test_a_weight_that_is_spoilt(tiny, culprit):
    name = f"layers.{culprit // 4}.norm.weight"

    def prepare(run):
        if run.place.rank == culprit:
            run.weights.shards[name].value.detach()[2] = NAN

    found = origins(tiny(2, 2), prepare)
    assert first_of(found) == culprit
    assert found[culprit].what == f"the weight {name} is not finite"
    assert not any(origin.kind == "weight" for rank, origin in found.items() if rank != culprit)


@pytest.mark.parametrize(("culprit", "what"), [(1, "what is sent is not finite"), (6, "the loss is not finite")])
def test_what_no_instruction_made(tiny, culprit, what):
    """It is spoilt between two of them, as by a line that someone has written there."""

    def prepare(run):
        if run.place.rank == culprit:
            send, add = run.send, run.add_loss
            if run.place.stage == 0:
                run.send = lambda tensors, rank: send([spoilt(x.detach()) for x in tensors], rank)
            run.add_loss = lambda x, same: add(x * NAN, same)

    found = origins(tiny(2, 2), prepare)
    assert first_of(found) == culprit, found
    assert found[culprit].kind == "came" and found[culprit].what.startswith(what)


@pytest.mark.parametrize(("culprit", "backward"), [(0, False), (2, True), (5, False), (7, True)])
def test_a_region_and_its_backward(tiny, culprit, backward):
    made = tiny(2, 2)
    edit_layer(made, culprit, backward)
    found = origins(made, lambda run: None)
    assert first_of(found) == culprit, found
    origin, layer = found[culprit], f"layers.{culprit // 4}"
    where = f"backward of region `feed_forward` of {layer}" if backward else f"region `feed_forward` of {layer}"
    assert origin.kind == "made" and where in origin.what and origin.micro_batch == 1
    line = "dh, db = tape.back(feed_forward, da)" if backward else "a = tape.run(feed_forward, h, bias, w.up, w.down)"
    assert origin.at.startswith("layer.py:") and origin.at.endswith(line)


def edit_layer(made, culprit, backward):
    """The region spoils, in this rank's second micro-batch of the second step."""
    path = made.folder / "layer.py"
    text = path.read_text()
    body = "    return F.linear(F.gelu(F.linear(h, up)), down, bias)"
    assert body in text
    path.write_text(
        text.replace(body, body.replace("return ", "return failing(") + f", {culprit}, {backward})").replace(
            "from sizes", "from stage_spoiling import failing\nfrom sizes"
        )
    )
    (made.folder / "stage_spoiling.py").write_text(_SPOILING)


_SPOILING = """
import torch
from moec.runtime.communicator import current

CALLS = {}


class Spoil(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, backward):
        ctx.backward = backward
        return x.clone() if backward else spoilt(x)

    @staticmethod
    def backward(ctx, gradient):
        return spoilt(gradient) if ctx.backward else gradient, None


def spoilt(x):
    x = x.clone()
    x.view(-1)[0] = float("nan")
    return x


def failing(x, culprit, backward):
    rank = current().rank
    CALLS[rank] = CALLS.get(rank, 0) + 1
    # Two calls a step: the fourth is the second micro-batch of the second step, the sixth that of its replay.
    return Spoil.apply(x, backward) if rank == culprit and CALLS[rank] in (4, 6) else x
"""


def test_what_was_so_once_and_not_again_is_said_to_be(tiny):
    """As where hardware errs: the ranks that had it are named."""
    store, words = dist.HashStore(), []

    class Watched:
        def said(self, rank, what, at, step):
            words.append((rank, what, at, step))
            return "said"

    def program(rank, run):
        reduce, times = run.reduce, []

        def failing(family):
            times.append(family)
            if rank.RANK == 6 and times == ["dp"]:
                run.weights.shards["layers.1.up.weight"].value.grad.view(-1)[0] = NAN
            reduce(family)

        run.reduce = failing
        with pytest.raises(NotFinite) as caught:
            rank.step(run)
        seen = "" if "another rank" in str(caught.value) else str(caught.value).partition(": ")[2]
        return name_origin(run, rank, seen, 1, store, Watched())

    (named,) = [named for named in tiny(2, 2).simulate(program) if named is not None]
    ((rank, what, at, step),) = words
    assert named.line == "said" and named.rank == rank in (4, 6) and (at, step) == ("", 1), (
        "both have the sum of their gradients"
    )
    assert "the gradient of layers.1.up.weight is not finite" in what and "when the step was run again" in what

"""A whole job, all ranks in one process, against the same model under plain autograd."""

from math import isclose

import pytest
import torch
import torch.nn.functional as F

from moec.runtime.initial import Initial
from moec.runtime.run import NotFinite

VOCAB, HIDDEN, FFN = 11, 6, 7
STEPS = 3


class Model:
    """tiny, whole; its values are those that Initial gives to the full names."""

    def __init__(self):
        self.plain = {"embed.weight": _initial("embed.weight", (VOCAB, HIDDEN), "normal 0.3")}
        self.decayed = {}
        for path in ("layers.0", "layers.1"):
            self.plain[f"{path}.norm.weight"] = _initial(f"{path}.norm.weight", (HIDDEN,), "ones")
            self.plain[f"{path}.down.bias"] = _initial(f"{path}.down.bias", (HIDDEN,), "zeros")
            self.decayed[f"{path}.up.weight"] = _initial(f"{path}.up.weight", (FFN, HIDDEN), "normal 0.3")
            self.decayed[f"{path}.down.weight"] = _initial(f"{path}.down.weight", (HIDDEN, FFN), "uniform 0.3")
        self.named = {**self.decayed, **self.plain}

    def loss(self, tokens, labels):
        named = self.named
        x = F.embedding(tokens, named["embed.weight"])
        for path in ("layers.0", "layers.1"):
            h = F.rms_norm(x, (HIDDEN,), named[f"{path}.norm.weight"] * 0.5, 1e-5)
            h = F.gelu(F.linear(h, named[f"{path}.up.weight"]))
            x = x + F.linear(h, named[f"{path}.down.weight"], named[f"{path}.down.bias"])
        return F.cross_entropy(F.linear(x, named["embed.weight"]).flatten(0, 1), labels.flatten(), reduction="sum")


def reference(job, source, clip):
    """Losses, gradient norms and the weights after some steps."""
    model = Model()
    optimizer = torch.optim.AdamW(
        [{"params": list(model.decayed.values())}, {"params": list(model.plain.values()), "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.95),
        eps=1e-8,
        weight_decay=0.1,
    )
    results = []
    for step in range(STEPS):
        samples = [source.sample(step * job.batch + i) for i in range(job.batch)]
        tokens, labels = (torch.stack([sample[name] for sample in samples]) for name in ("tokens", "labels"))
        loss = model.loss(tokens, labels) / labels.numel()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.named.values(), clip or float("inf"))
        optimizer.step()
        results.append((loss.item(), norm.item()))
    return results, {name: value.detach() for name, value in model.named.items()}


@pytest.mark.parametrize(("dp", "tp", "clip"), [(1, 1, None), (3, 2, 0.1), (2, 3, 10.0)])
def test_equals_plain_autograd(tiny, dp, tp, clip):
    made = tiny(dp, tp, clip=clip)

    def program(rank, run):
        results = []
        for _ in range(STEPS):
            rank.step(run)
            results.append((run.result.loss, run.result.gradient_norm))
        return results, [(shard.where, shard.inside, shard.value, name) for name, shard in run.weights.shards.items()]

    expected, weights = reference(made.job, made.source, clip)
    ranks = made.simulate(program)
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


def test_a_slice_that_the_coordinates_do_not_give_is_refused(tiny):
    made = tiny(1, 2)
    path = made.folder / "rank_001.py"
    path.write_text(path.read_text().replace("[4:7, :]", "[0:4, :]"))
    with pytest.raises(ValueError, match=r"rank 1 states that layer.up is \[0:4, :\] of \[7, 6\]"):
        made.simulate(lambda rank, run: None)


def _initial(name, shape, init):
    return torch.nn.Parameter(Initial(7)(name, shape, init, [slice(0, n) for n in shape]))

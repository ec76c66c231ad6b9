"""tiny as one plain model, trained by plain autograd."""

import torch
import torch.nn.functional as F

from moec.runtime.initial import Initial

VOCAB, HIDDEN, FFN = 11, 6, 7


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


def plain_training(job, source, clip, steps):
    """Losses and gradient norms, and the weights after some steps, with their optimizer."""
    model = Model()
    optimizer = torch.optim.AdamW(
        [{"params": list(model.decayed.values())}, {"params": list(model.plain.values()), "weight_decay": 0.0}],
        lr=0.01,
        betas=(0.9, 0.95),
        eps=1e-8,
        weight_decay=0.1,
    )
    results = []
    for step in range(steps):
        samples = [source.sample(step * job.batch + i) for i in range(job.batch)]
        tokens, labels = (torch.stack([sample[name] for sample in samples]) for name in ("tokens", "labels"))
        loss = model.loss(tokens, labels) / (labels != -100).sum()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.named.values(), clip or float("inf"))
        optimizer.step()
        results.append((loss.item(), norm.item()))
    return (
        results,
        {name: value.detach() for name, value in model.named.items()},
        {name: optimizer.state[value] for name, value in model.named.items()},
    )


def _initial(name, shape, init):
    return torch.nn.Parameter(Initial(7)(name, shape, init, [slice(0, n) for n in shape]))

"""The layer of tiny: a norm and a feed-forward, whose middle goes over tp."""

import torch.nn.functional as F
from sizes import FFN, HIDDEN

from moec.runtime import Weight, accumulate, all_reduce, first

TABLE = {
    "norm": Weight("norm.weight", (HIDDEN,), ((),), "dp", "ones", decay=False),
    "up": Weight("up.weight", (FFN, HIDDEN), (("tp",), ()), "dp", "normal 0.3"),
    "down": Weight("down.weight", (HIDDEN, FFN), ((), ("tp",)), "dp", "uniform 0.3"),
    "bias": Weight("down.bias", (HIDDEN,), ((),), "dp", "zeros", decay=False),
}


def norm(x, scale, weight):
    """x [B, T, D]  tp I"""
    return F.rms_norm(x, (HIDDEN,), weight * scale, 1e-5)


def feed_forward(h, bias, up, down):
    """h [B, T, D]  tp R  ->  tp P: down sums over ffn"""
    return F.linear(F.gelu(F.linear(h, up)), down, bias)


def add(x, a):
    return x + a


def layer_forward(x, scale, w, tape):
    h = tape.run(norm, x, scale, w.norm)
    bias = first(w.bias, "tp")  # I -> P, added once
    a = tape.run(feed_forward, h, bias, w.up, w.down)
    a = all_reduce(a, "tp", "a")  # P -> I, ffn
    tape.keep(w.bias)
    return tape.run(add, x, a)


def layer_backward(dx, tape):
    dx, da = tape.back(add, dx)
    bias = tape.kept()
    dh, db = tape.back(feed_forward, da)
    accumulate(bias, db)
    dh = all_reduce(dh, "tp", "dh")  # h was I, and each tp rank used it for its own ffn
    return dx + tape.back(norm, dh)

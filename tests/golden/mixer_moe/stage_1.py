"""Stage 1 of 2 of mixer_moe: blocks.2 to blocks.3, head.  Mesh pp 2  ep 2  tp 2.

Shapes are one rank's own. S split, I the same, R the same but used differently, P summands.
"""

import torch.nn.functional as F
from sizes import CAPACITY, DTYPE, EXPERTS, FFN, FLOAT, LOCAL_BATCH, MIXED, SEQ, VOCAB, WIDTH

from moec.runtime import (
    Slot,
    Weight,
    accumulate,
    all_reduce,
    all_reduce_together,
    all_to_all,
    first,
    routing,
)

WEIGHTS = {
    "block": {
        "mix_norm": Weight("mix_norm.weight", (WIDTH,), ((),), "ep", "module", decay=False),
        "mix_norm_bias": Weight("mix_norm.bias", (WIDTH,), ((),), "ep", "module", decay=False),
        "mix_up": Weight("mix_up.weight", (MIXED, SEQ), (("tp",), ()), "ep", "module"),
        "mix_up_bias": Weight("mix_up.bias", (MIXED,), (("tp",),), "ep", "module", decay=False),
        "mix_down": Weight("mix_down.weight", (SEQ, MIXED), ((), ("tp",)), "ep", "module"),
        "mix_down_bias": Weight("mix_down.bias", (SEQ,), ((),), "ep", "module", decay=False),
        "norm": Weight("norm.weight", (WIDTH,), ((),), "ep", "module", decay=False),
        "norm_bias": Weight("norm.bias", (WIDTH,), ((),), "ep", "module", decay=False),
        "up": Weight("experts.up", (EXPERTS, FFN, WIDTH), (("ep",), ("tp",), ()), "", "module"),
        "down": Weight("experts.down", (EXPERTS, WIDTH, FFN), (("ep",), (), ("tp",)), "", "module"),
        "router": Weight("experts.router.weight", (EXPERTS, WIDTH), ((), ()), "ep", "module"),
    },
    "head": {
        "norm": Weight("norm.weight", (WIDTH,), ((),), "ep", "module", decay=False),
        "norm_bias": Weight("norm.bias", (WIDTH,), ((),), "ep", "module", decay=False),
        "head": Weight("head.weight", (VOCAB, WIDTH), ((), ()), "ep", "module"),
        "head_bias": Weight("head.bias", (VOCAB,), ((),), "ep", "module", decay=False),
    },
}
UNITS = (
    ("block", ("blocks.2", "blocks.3")),
    ("head", ("",)),
)
INPUTS = {
    "answer": (("ep",), ()),
}
ACTIVATIONS_IN = (Slot("x", (LOCAL_BATCH, SEQ, WIDTH), DTYPE, grad=True),)


def mix_norm(x, mix_norm, mix_norm_bias):
    """x [LOCAL_BATCH, SEQ, WIDTH]  ep S(batch)  ->  columns [LOCAL_BATCH, WIDTH, SEQ]  ep S(batch)"""
    return F.layer_norm(x, (WIDTH,), mix_norm, mix_norm_bias).transpose(1, 2)


def mix_up_mix_down(columns, mix_down_bias, mix_up, mix_up_bias, mix_down):
    """columns [LOCAL_BATCH, WIDTH, SEQ]  ep S(batch)  tp R;  mix_down_bias [SEQ]  tp P

    ->  h [LOCAL_BATCH, SEQ, WIDTH]  ep S(batch)  tp P
    """
    return F.linear(F.gelu(F.linear(columns, mix_up, mix_up_bias)), mix_down, mix_down_bias).transpose(1, 2)


def norm_router(x, h, norm, norm_bias, router):
    """x, h [LOCAL_BATCH, SEQ, WIDTH]  ep S(batch)

    ->  x [LOCAL_BATCH, SEQ, WIDTH]  ep S(batch);  prob, slot [LOCAL_BATCH, SEQ, 2]  ep S(batch);  rows
    [EXPERTS, LOCAL_BATCH, CAPACITY, WIDTH]  ep S(batch)
    """
    x = x + h
    x_2 = F.layer_norm(x, (WIDTH,), norm, norm_bias)
    prob, expert, place = routing.route(F.linear(x_2, router).to(FLOAT), 2, CAPACITY, "per_sequence", False)
    slot = routing.slots(expert, place, EXPERTS, CAPACITY, "per_sequence")
    rows = routing.fill_slots(x_2, slot, EXPERTS, CAPACITY, "per_sequence")
    return x, prob, slot, rows


def experts(rows, up, down):
    """rows [LOCAL_EXPERTS, BATCH, CAPACITY, WIDTH]  ep S(experts)  tp R

    ->  rows [LOCAL_EXPERTS, BATCH, CAPACITY, WIDTH]  ep S(experts)  tp P
    """
    return routing.grouped_linear(F.gelu(routing.grouped_linear(rows, up)), down)


def read_slots(rows, prob, slot):
    """rows [EXPERTS, LOCAL_BATCH, CAPACITY, WIDTH]  ep S(batch)  tp P;  prob [LOCAL_BATCH, SEQ, 2]
    ep S(batch)  tp R;  slot [LOCAL_BATCH, SEQ, 2]  ep S(batch)

    ->  experts_out [LOCAL_BATCH, SEQ, WIDTH]  ep S(batch)  tp P
    """
    return routing.read_slots(rows, prob, slot)


def add(x, experts_out):
    """x, experts_out [LOCAL_BATCH, SEQ, WIDTH]  ep S(batch)  ->  x [LOCAL_BATCH, SEQ, WIDTH]  ep S(batch)"""
    return x + experts_out


def block_forward(x, w, tape):
    """blocks.2 to blocks.3.  x [LOCAL_BATCH, SEQ, WIDTH]  ep S(batch)  ->  x [LOCAL_BATCH, SEQ, WIDTH]
    ep S(batch)"""
    mix_down_bias = first(w.mix_down_bias, "tp")
    columns = tape.run(mix_norm, x, w.mix_norm, w.mix_norm_bias)
    h = tape.run(mix_up_mix_down, columns, mix_down_bias, w.mix_up, w.mix_up_bias, w.mix_down)
    h = all_reduce(h, "tp")  # 16 KiB x 2: P -> I
    x, prob, slot, rows = tape.run(norm_router, x, h, w.norm, w.norm_bias, w.router)
    rows = all_to_all(rows, "ep", split=0, join=1)  # 40 KiB x 2: S(batch) -> S(experts)
    rows = tape.run(experts, rows, w.up, w.down)
    rows = all_to_all(rows, "ep", split=1, join=0)  # 40 KiB x 2: S(experts) -> S(batch)
    experts_out = tape.run(read_slots, rows, prob, slot)
    experts_out = all_reduce(experts_out, "tp")  # 16 KiB x 2: P -> I
    return tape.run(add, x, experts_out)


def block_backward(dx, w, tape):
    """The same, transposed, last line first."""
    dx, dexperts_out = tape.back(add, dx)
    drows, dprob = tape.back(read_slots, dexperts_out)
    drows = all_to_all(drows, "ep", split=0, join=1)  # 40 KiB x 2: back
    drows = tape.back(experts, drows)
    # 512 B + 40 KiB x 2: the ranks used them differently
    dprob, drows = all_reduce_together((dprob, drows), "tp")
    drows = all_to_all(drows, "ep", split=1, join=0)  # 40 KiB x 2: back
    dx, dh = tape.back(norm_router, dx, dprob, drows)
    dcolumns, dmix_down_bias = tape.back(mix_up_mix_down, dh)
    dcolumns = all_reduce(dcolumns, "tp")  # 16 KiB x 2: the ranks used it differently
    dx_2 = tape.back(mix_norm, dcolumns)
    accumulate(w.mix_down_bias, dmix_down_bias)
    return dx + dx_2


def norm_head(x, answer, norm, norm_bias, head, head_bias):
    """x [LOCAL_BATCH, SEQ, WIDTH]  ep S(batch);  answer [LOCAL_BATCH, SEQ]  ep S(batch)  ->  loss []  ep P"""
    scores = F.linear(F.layer_norm(x, (WIDTH,), norm, norm_bias), head, head_bias)
    return F.cross_entropy(scores.transpose(1, 2), answer, reduction="sum")


def head_forward(x, answer, w, tape):
    """head.  x [LOCAL_BATCH, SEQ, WIDTH]  ep S(batch);  answer [LOCAL_BATCH, SEQ]  ep S(batch)  ->  loss
    []  ep P"""
    return tape.run(norm_head, x, answer, w.norm, w.norm_bias, w.head, w.head_bias)


def head_backward(dloss, tape):
    """The same, transposed, last line first."""
    return tape.back(norm_head, dloss)


def forward(run, i, received):
    """Micro-batch i, forward."""
    tape = run.tape(i)
    (x,) = received
    blocks, (head_weights,) = run.weights
    inputs = run.inputs(i)
    for w in blocks:
        x = block_forward(x, w, tape)
    loss = head_forward(x, inputs["answer"], head_weights, tape)
    run.add_loss(loss, same="tp")


def backward(run, i):
    """Micro-batch i, backward."""
    tape = run.tape(i)
    blocks, (head_weights,) = run.weights
    dx = head_backward(run.seed.to(DTYPE), tape)
    for w in reversed(blocks):
        dx = block_backward(dx, w, tape)
    return (dx,)


def valid(answer):
    """answer [LOCAL_BATCH, SEQ]  ep S(batch)  ->  h []  ep P"""
    return (answer != -100).sum()


def count(run):
    """What the loss of each micro-batch is a sum over."""
    return [valid(run.inputs(i)["answer"]) for i in range(run.job.accumulate)]


def reduce_gradients(run):
    """Sum the gradients of weights that several ranks have."""
    run.reduce("ep")  # among 2 ranks, each with its own samples or part

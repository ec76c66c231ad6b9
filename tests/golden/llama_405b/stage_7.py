"""Stage 7 of 8 of llama_405b: layers.111 to layers.125, head.  Mesh pp 8  dp 2  tp 8.

Shapes are one rank's own. S split, I the same, R the same but used differently, P summands.
"""

import torch
import torch.nn.functional as F
from sizes import (
    DTYPE,
    FFN,
    FLOAT,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    KV_HEADS,
    LOCAL_BATCH,
    LOCAL_HEADS,
    LOCAL_KV_HEADS,
    SEQ,
    VOCAB,
)

from moec.runtime import Slot, Weight, all_reduce, all_reduce_max, vocabulary

WEIGHTS = {
    "layer": {
        "attn_norm": Weight("attn_norm.weight", (HIDDEN,), ((),), "dp", "ones", decay=False),
        "wq": Weight("attn.wq.weight", (HEADS * HEAD_DIM, HIDDEN), (("tp",), ()), "dp", "normal 0.02"),
        "wk": Weight("attn.wk.weight", (KV_HEADS * HEAD_DIM, HIDDEN), (("tp",), ()), "dp", "normal 0.02"),
        "wv": Weight("attn.wv.weight", (KV_HEADS * HEAD_DIM, HIDDEN), (("tp",), ()), "dp", "normal 0.02"),
        "wo": Weight("attn.wo.weight", (HIDDEN, HEADS * HEAD_DIM), ((), ("tp",)), "dp", "normal 0.02"),
        "ffn_norm": Weight("ffn_norm.weight", (HIDDEN,), ((),), "dp", "ones", decay=False),
        "gate": Weight("ffn.gate.weight", (FFN, HIDDEN), (("tp",), ()), "dp", "normal 0.02"),
        "up": Weight("ffn.up.weight", (FFN, HIDDEN), (("tp",), ()), "dp", "normal 0.02"),
        "down": Weight("ffn.down.weight", (HIDDEN, FFN), ((), ("tp",)), "dp", "normal 0.02"),
    },
    "head": {
        "norm": Weight("norm.weight", (HIDDEN,), ((),), "dp", "ones", decay=False),
        "head": Weight("head.weight", (VOCAB, HIDDEN), (("tp",), ()), "dp", "normal 0.02"),
    },
}
STACKED = {
    "layer": {
        "wqkv": ("wq", "wk", "wv"),
        "up_gate": ("up", "gate"),
    },
}
UNITS = (
    (
        "layer",
        (
            "layers.111",
            "layers.112",
            "layers.113",
            "layers.114",
            "layers.115",
            "layers.116",
            "layers.117",
            "layers.118",
            "layers.119",
            "layers.120",
            "layers.121",
            "layers.122",
            "layers.123",
            "layers.124",
            "layers.125",
        ),
    ),
    ("head", ("",)),
)
INPUTS = {
    "labels": (("dp",), ()),
}
ACTIVATIONS_IN = (Slot("x", (LOCAL_BATCH, SEQ, HIDDEN), DTYPE, grad=True),)


def attn_norm(x, attn_norm):
    """x [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)  ->  h [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)"""
    return F.rms_norm(x, (HIDDEN,), attn_norm, 1e-05)


def attn(h, cos, sin, wqkv, wo):
    """h [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)  tp R;  cos, sin [SEQ, HEAD_DIM]

    ->  attn_out [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)  tp P
    """
    q, k, v = F.linear(h, wqkv).split(
        (LOCAL_HEADS * HEAD_DIM, LOCAL_KV_HEADS * HEAD_DIM, LOCAL_KV_HEADS * HEAD_DIM), -1
    )
    q = q.view(LOCAL_BATCH, SEQ, LOCAL_HEADS, HEAD_DIM).transpose(1, 2)
    k = k.view(LOCAL_BATCH, SEQ, LOCAL_KV_HEADS, HEAD_DIM).transpose(1, 2)
    v = v.view(LOCAL_BATCH, SEQ, LOCAL_KV_HEADS, HEAD_DIM).transpose(1, 2)
    h, part = q.chunk(2, -1)
    q = q * cos + torch.cat((-part, h), -1) * sin
    h, part = k.chunk(2, -1)
    k = k * cos + torch.cat((-part, h), -1) * sin
    a = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return F.linear(a.transpose(1, 2).reshape(LOCAL_BATCH, SEQ, LOCAL_HEADS * HEAD_DIM), wo)


def ffn_norm(x, attn_out, ffn_norm):
    """x, attn_out [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)  ->  x, h [LOCAL_BATCH, SEQ, HIDDEN]
    dp S(batch)"""
    x = x + attn_out
    h = F.rms_norm(x, (HIDDEN,), ffn_norm, 1e-05)
    return x, h


def ffn(h, up_gate, down):
    """h [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)  tp R  ->  ffn_out [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)
    tp P"""
    up, h = F.linear(h, up_gate).chunk(2, -1)
    act = F.silu(h) * up
    return F.linear(act, down)


def add(x, ffn_out):
    """x, ffn_out [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)  ->  x [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)"""
    return x + ffn_out


def layer_forward(x, cos, sin, w, tape):
    """layers.111 to layers.125.

    x [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)

    ->  x [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)
    """
    h = tape.run(attn_norm, x, w.attn_norm)
    attn_out = tape.run(attn, h, cos, sin, w.wqkv, w.wo)
    attn_out = all_reduce(attn_out, "tp")  # 256 MiB x 8: P -> I
    x, h = tape.run(ffn_norm, x, attn_out, w.ffn_norm)
    ffn_out = tape.run(ffn, h, w.up_gate, w.down)
    ffn_out = all_reduce(ffn_out, "tp")  # 256 MiB x 8: P -> I
    return tape.run(add, x, ffn_out)


def layer_backward(dx, tape):
    """The same, transposed, last line first."""
    dx, dffn_out = tape.back(add, dx)
    dh = tape.back(ffn, dffn_out)
    dh = all_reduce(dh, "tp")  # 256 MiB x 8: the ranks used it differently
    dx, dattn_out = tape.back(ffn_norm, dx, dh)
    dh = tape.back(attn, dattn_out)
    dh = all_reduce(dh, "tp")  # 256 MiB x 8: the ranks used it differently
    dx_2 = tape.back(attn_norm, dh)
    return dx + dx_2


def norm(x, norm):
    """x [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)  ->  x [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)"""
    return F.rms_norm(x, (HIDDEN,), norm, 1e-05)


def head(x, head):
    """x [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)  tp R

    ->  h [LOCAL_BATCH, LOCAL_VOCAB, SEQ]  dp S(batch)  tp S(vocab);  top [LOCAL_BATCH, SEQ]  dp S(batch)
    tp P(max)
    """
    logits = F.linear(x, head).to(FLOAT)
    h = logits.transpose(1, 2)
    top = vocabulary.highest(h, "tp", VOCAB, 1)
    return h, top


def class_sums(h, top, labels):
    """h [LOCAL_BATCH, LOCAL_VOCAB, SEQ]  dp S(batch)  tp S(vocab);  top, labels [LOCAL_BATCH, SEQ]
    dp S(batch)

    ->  sums [2, LOCAL_BATCH, SEQ]  dp S(batch)  tp P
    """
    return vocabulary.class_sums(h, top, labels, "tp", VOCAB, -100, 1)


def cross_entropy_of_sums(sums, labels):
    """sums [2, LOCAL_BATCH, SEQ]  dp S(batch);  labels [LOCAL_BATCH, SEQ]  dp S(batch)  ->  loss []  dp P"""
    return vocabulary.cross_entropy_of_sums(sums, labels, -100)


def head_forward(x, labels, w, tape):
    """head.  x [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch);  labels [LOCAL_BATCH, SEQ]  dp S(batch)  ->  loss
    []  dp P"""
    x = tape.run(norm, x, w.norm)
    h, top = tape.run(head, x, w.head)
    top = all_reduce_max(top, "tp")  # 32 KiB x 8: P -> I, the largest logit of all ranks
    sums = tape.run(class_sums, h, top, labels)
    sums = all_reduce(sums, "tp")  # 64 KiB x 8: P -> I
    return tape.run(cross_entropy_of_sums, sums, labels)


def head_backward(dloss, tape):
    """The same, transposed, last line first."""
    dsums = tape.back(cross_entropy_of_sums, dloss)
    dh = tape.back(class_sums, dsums)
    dx = tape.back(head, dh)
    dx = all_reduce(dx, "tp")  # 256 MiB x 8: the ranks used it differently
    return tape.back(norm, dx)


def make_tables():
    """Values that need neither weights nor data, made once."""
    h = torch.arange(SEQ, dtype=FLOAT).unsqueeze(1) * 10000.0 ** (
        -torch.arange(0, HEAD_DIM, 2, dtype=FLOAT) / HEAD_DIM
    )
    h = torch.cat((h, h), -1)
    cos = h.cos().to(DTYPE)
    sin = h.sin().to(DTYPE)
    return {"cos": cos, "sin": sin}


def forward(run, i, received):
    """Micro-batch i, forward."""
    tape = run.tape(i)
    (x,) = received
    layers, (head_weights,) = run.weights
    inputs = run.inputs(i)
    cos = run.tables["cos"]
    sin = run.tables["sin"]
    for w in layers:
        x = layer_forward(x, cos, sin, w, tape)
    loss = head_forward(x, inputs["labels"], head_weights, tape)
    run.add_loss(loss, same="tp")


def backward(run, i):
    """Micro-batch i, backward."""
    tape = run.tape(i)
    layers, (head_weights,) = run.weights
    dx = head_backward(run.seed, tape)
    for _ in layers:
        dx = layer_backward(dx, tape)
    return (dx,)


def valid(labels):
    """labels [LOCAL_BATCH, SEQ]  dp S(batch)  ->  count []  dp P"""
    return (labels != -100).sum()


def count(run):
    """What the loss of each micro-batch is a sum over."""
    return [valid(run.inputs(i)["labels"]) for i in range(run.job.accumulate)]


def reduce_gradients(run):
    """Sum the gradients of weights that several ranks have."""
    run.reduce("dp")  # among 2 ranks, each with its own samples or part

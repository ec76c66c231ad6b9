"""Stage 1 of 8 of llama_405b: layers.15 to layers.30.  Mesh pp 8  dp 2  tp 8.

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
)

from moec.runtime import Slot, Weight, all_reduce

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
            "layers.15",
            "layers.16",
            "layers.17",
            "layers.18",
            "layers.19",
            "layers.20",
            "layers.21",
            "layers.22",
            "layers.23",
            "layers.24",
            "layers.25",
            "layers.26",
            "layers.27",
            "layers.28",
            "layers.29",
            "layers.30",
        ),
    ),
)
ACTIVATIONS_IN = (Slot("x", (LOCAL_BATCH, SEQ, HIDDEN), DTYPE, grad=True),)
GRADIENTS_IN = (Slot("dx", (LOCAL_BATCH, SEQ, HIDDEN), DTYPE, grad=False),)


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
    """layers.15 to layers.30.

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
    (layers,) = run.weights
    cos = run.tables["cos"]
    sin = run.tables["sin"]
    for w in layers:
        x = layer_forward(x, cos, sin, w, tape)
    return (x,)


def backward(run, i, received):
    """Micro-batch i, backward."""
    tape = run.tape(i)
    (dx,) = received
    (layers,) = run.weights
    for _ in layers:
        dx = layer_backward(dx, tape)
    return (dx,)


def reduce_gradients(run):
    """Sum the gradients of weights that several ranks have."""
    run.reduce("dp")  # among 2 ranks, each with its own samples or part

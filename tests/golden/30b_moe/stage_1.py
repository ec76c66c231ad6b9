"""Stage 1 of 4 of 30b_moe: layers.4 to layers.7.  Mesh pp 4  dp 2  ep 16  tp 4.

Shapes are one rank's own. S split, I the same, R the same but used differently, P summands.
"""

import torch
import torch.nn.functional as F
from sizes import (
    CAPACITY,
    DTYPE,
    EXPERT_FFN,
    EXPERTS,
    FLOAT,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    LOCAL_BATCH,
    LOCAL_HEADS,
    SEQ,
)

from moec.runtime import Slot, Weight, all_reduce, all_reduce_together, all_to_all, routing

WEIGHTS = {
    "layer": {
        "attn_norm": Weight("attn_norm.weight", (HIDDEN,), ((),), "dp_ep", "ones", decay=False),
        "wq": Weight("attn.wq.weight", (HEADS * HEAD_DIM, HIDDEN), (("tp",), ()), "dp_ep", "normal 0.02"),
        "wk": Weight("attn.wk.weight", (HEADS * HEAD_DIM, HIDDEN), (("tp",), ()), "dp_ep", "normal 0.02"),
        "wv": Weight("attn.wv.weight", (HEADS * HEAD_DIM, HIDDEN), (("tp",), ()), "dp_ep", "normal 0.02"),
        "wo": Weight("attn.wo.weight", (HIDDEN, HEADS * HEAD_DIM), ((), ("tp",)), "dp_ep", "normal 0.02"),
        "ffn_norm": Weight("ffn_norm.weight", (HIDDEN,), ((),), "dp_ep", "ones", decay=False),
        "up": Weight("ffn.up", (EXPERTS, EXPERT_FFN, HIDDEN), (("ep",), ("tp",), ()), "dp", "normal 0.02"),
        "down": Weight(
            "ffn.down", (EXPERTS, HIDDEN, EXPERT_FFN), (("ep",), (), ("tp",)), "dp", "normal 0.02"
        ),
        "router": Weight("ffn.router.weight", (EXPERTS, HIDDEN), ((), ()), "dp_ep", "normal 0.02"),
    },
}
STACKED = {
    "layer": {
        "wqkv": ("wq", "wk", "wv"),
    },
}
UNITS = (("layer", ("layers.4", "layers.5", "layers.6", "layers.7")),)
ACTIVATIONS_IN = (Slot("x", (LOCAL_BATCH, SEQ, HIDDEN), DTYPE, grad=True),)
GRADIENTS_IN = (Slot("dx", (LOCAL_BATCH, SEQ, HIDDEN), DTYPE, grad=False),)


def attn_norm(x, attn_norm):
    """x [LOCAL_BATCH, SEQ, HIDDEN]  dp, ep S(batch)  ->  h [LOCAL_BATCH, SEQ, HIDDEN]  dp, ep S(batch)"""
    return F.rms_norm(x, (HIDDEN,), attn_norm, 1e-05)


def attn(h, cos, sin, wqkv, wo):
    """h [LOCAL_BATCH, SEQ, HIDDEN]  dp, ep S(batch)  tp R;  cos, sin [SEQ, HEAD_DIM]

    ->  attn_out [LOCAL_BATCH, SEQ, HIDDEN]  dp, ep S(batch)  tp P
    """
    q, k, v = F.linear(h, wqkv).chunk(3, -1)
    q = q.view(LOCAL_BATCH, SEQ, LOCAL_HEADS, HEAD_DIM).transpose(1, 2)
    k = k.view(LOCAL_BATCH, SEQ, LOCAL_HEADS, HEAD_DIM).transpose(1, 2)
    v = v.view(LOCAL_BATCH, SEQ, LOCAL_HEADS, HEAD_DIM).transpose(1, 2)
    h, part = q.chunk(2, -1)
    q = q * cos + torch.cat((-part, h), -1) * sin
    h, part = k.chunk(2, -1)
    k = k * cos + torch.cat((-part, h), -1) * sin
    a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return F.linear(a.transpose(1, 2).reshape(LOCAL_BATCH, SEQ, LOCAL_HEADS * HEAD_DIM), wo)


def ffn_norm_router(x, attn_out, ffn_norm, router):
    """x, attn_out [LOCAL_BATCH, SEQ, HIDDEN]  dp, ep S(batch)

    ->  x [LOCAL_BATCH, SEQ, HIDDEN]  dp, ep S(batch);  prob, slot [LOCAL_BATCH, SEQ, 1]  dp, ep S(batch);
    rows [EXPERTS, LOCAL_BATCH, CAPACITY, HIDDEN]  dp, ep S(batch)
    """
    x = x + attn_out
    h = F.rms_norm(x, (HIDDEN,), ffn_norm, 1e-05)
    logits = F.linear(h.to(FLOAT), router.to(FLOAT))
    prob, expert, place = routing.route(logits, 1, CAPACITY, "per_sequence", True)
    slot = routing.slots(expert, place, EXPERTS, CAPACITY, "per_sequence")
    rows = routing.fill_slots(h, slot, EXPERTS, CAPACITY, "per_sequence")
    return x, prob, slot, rows


def ffn(rows, up, down):
    """rows [LOCAL_EXPERTS, BATCH_PER_DP, CAPACITY, HIDDEN]  ep S(experts)  dp S(batch)  tp R

    ->  rows [LOCAL_EXPERTS, BATCH_PER_DP, CAPACITY, HIDDEN]  ep S(experts)  dp S(batch)  tp P
    """
    up = routing.grouped_linear(rows, up)
    act = F.gelu(up)
    return routing.grouped_linear(act, down)


def read_slots(rows, prob, slot):
    """rows [EXPERTS, LOCAL_BATCH, CAPACITY, HIDDEN]  dp, ep S(batch)  tp P;  prob [LOCAL_BATCH, SEQ, 1]
    dp, ep S(batch)  tp R;  slot [LOCAL_BATCH, SEQ, 1]  dp, ep S(batch)

    ->  ffn_out [LOCAL_BATCH, SEQ, HIDDEN]  dp, ep S(batch)  tp P
    """
    return routing.read_slots(rows, prob, slot)


def add(x, ffn_out):
    """x, ffn_out [LOCAL_BATCH, SEQ, HIDDEN]  dp, ep S(batch)  ->  x [LOCAL_BATCH, SEQ, HIDDEN]
    dp, ep S(batch)"""
    return x + ffn_out


def layer_forward(x, cos, sin, w, tape):
    """layers.4 to layers.7.

    x [LOCAL_BATCH, SEQ, HIDDEN]  dp, ep S(batch)

    ->  x [LOCAL_BATCH, SEQ, HIDDEN]  dp, ep S(batch)
    """
    h = tape.run(attn_norm, x, w.attn_norm)
    attn_out = tape.run(attn, h, cos, sin, w.wqkv, w.wo)
    attn_out = all_reduce(attn_out, "tp")  # 16 MiB x 4: P -> I
    x, prob, slot, rows = tape.run(ffn_norm_router, x, attn_out, w.ffn_norm, w.router)
    rows = all_to_all(rows, "ep", split=0, join=1)  # 18 MiB x 16: S(batch) -> S(experts)
    rows = tape.run(ffn, rows, w.up, w.down)
    rows = all_to_all(rows, "ep", split=1, join=0)  # 18 MiB x 16: S(experts) -> S(batch)
    ffn_out = tape.run(read_slots, rows, prob, slot)
    ffn_out = all_reduce(ffn_out, "tp")  # 16 MiB x 4: P -> I
    return tape.run(add, x, ffn_out)


def layer_backward(dx, tape):
    """The same, transposed, last line first."""
    dx, dffn_out = tape.back(add, dx)
    drows, dprob = tape.back(read_slots, dffn_out)
    drows = all_to_all(drows, "ep", split=0, join=1)  # 18 MiB x 16: back
    drows = tape.back(ffn, drows)
    # 16 KiB + 18 MiB x 4: the ranks used them differently
    dprob, drows = all_reduce_together((dprob, drows), "tp")
    drows = all_to_all(drows, "ep", split=1, join=0)  # 18 MiB x 16: back
    dx, dattn_out = tape.back(ffn_norm_router, dx, dprob, drows)
    dh = tape.back(attn, dattn_out)
    dh = all_reduce(dh, "tp")  # 16 MiB x 4: the ranks used it differently
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
    run.reduce("dp_ep")  # among 32 ranks, each with its own samples or part

"""The only stage of sequence_parallel: embed, layers.0 to layers.7, head.  Mesh dp 4  tp 2  ep 4.

Shapes are one rank's own. S split, I the same, R the same but used differently, P summands.
"""

import torch
import torch.nn.functional as F
from sizes import (
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
    VOCAB,
)

from moec.runtime import (
    Weight,
    all_gather,
    all_reduce_max,
    exchange_counts,
    reduce_scatter,
    return_rows,
    routing,
    send_rows,
    vocabulary,
)

WEIGHTS = {
    "embed": {
        "embed": Weight("embed.weight", (VOCAB, HIDDEN), (("tp",), ()), "dp", "normal 0.02"),
    },
    "layer": {
        "attn_norm": Weight("attn_norm.weight", (HIDDEN,), ((),), "dp_tp", "ones", decay=False),
        "wq": Weight("attn.wq.weight", (HEADS * HEAD_DIM, HIDDEN), (("tp",), ()), "dp", "normal 0.02"),
        "wk": Weight("attn.wk.weight", (HEADS * HEAD_DIM, HIDDEN), (("tp",), ()), "dp", "normal 0.02"),
        "wv": Weight("attn.wv.weight", (HEADS * HEAD_DIM, HIDDEN), (("tp",), ()), "dp", "normal 0.02"),
        "wo": Weight("attn.wo.weight", (HIDDEN, HEADS * HEAD_DIM), ((), ("tp",)), "dp", "normal 0.02"),
        "ffn_norm": Weight("ffn_norm.weight", (HIDDEN,), ((),), "dp_tp", "ones", decay=False),
        "gate": Weight(
            "ffn.gate", (EXPERTS, EXPERT_FFN, HIDDEN), (("dp.1", "tp"), (), ()), "dp0", "normal 0.02"
        ),
        "up": Weight("ffn.up", (EXPERTS, EXPERT_FFN, HIDDEN), (("dp.1", "tp"), (), ()), "dp0", "normal 0.02"),
        "down": Weight(
            "ffn.down", (EXPERTS, HIDDEN, EXPERT_FFN), (("dp.1", "tp"), (), ()), "dp0", "normal 0.02"
        ),
        "router": Weight("ffn.router.weight", (EXPERTS, HIDDEN), ((), ()), "dp_tp", "normal 0.02"),
    },
    "head": {
        "norm": Weight("norm.weight", (HIDDEN,), ((),), "dp_tp", "ones", decay=False),
        "head": Weight("head.weight", (VOCAB, HIDDEN), (("tp",), ()), "dp", "normal 0.02"),
    },
}
STACKED = {
    "layer": {
        "wqkv": ("wq", "wk", "wv"),
    },
}
UNITS = (
    ("embed", ("",)),
    (
        "layer",
        ("layers.0", "layers.1", "layers.2", "layers.3", "layers.4", "layers.5", "layers.6", "layers.7"),
    ),
    ("head", ("",)),
)
INPUTS = {
    "labels": (("dp.0", "dp.1"), ("tp",)),
    "tokens": (("dp.0", "dp.1"), ()),
    "labels@2": (("dp.0", "dp.1"), ()),
}


def embed(tokens, embed):
    """tokens [LOCAL_BATCH, SEQ]  dp S(batch)  ->  x [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)  tp P"""
    return vocabulary.embed_rows(tokens, embed, "tp")


def embed_forward(tokens, w, tape):
    """embed.  tokens [LOCAL_BATCH, SEQ]  dp S(batch)  ->  x [LOCAL_BATCH, LOCAL_SEQ, HIDDEN]  dp S(batch)
    tp S(seq)"""
    x = tape.run(embed, tokens, w.embed)
    x = reduce_scatter(x, "tp", dim=1)  # 4.0 MiB x 2: P -> S(seq)
    return x


def embed_backward(dx, tape):
    """The same, transposed, last line first."""
    dx = all_gather(dx, "tp", dim=1)  # 4.0 MiB x 2: of the whole
    tape.back(embed, dx)


def attn_norm(x, attn_norm):
    """x [LOCAL_BATCH, LOCAL_SEQ, HIDDEN]  dp S(batch)  tp S(seq)

    ->  h [LOCAL_BATCH, LOCAL_SEQ, HIDDEN]  dp S(batch)  tp S(seq)
    """
    return F.rms_norm(x, (HIDDEN,), attn_norm, 1e-05)


def attn(h, cos, sin, wqkv, wo):
    """h [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)  tp R;  cos, sin [SEQ, HEAD_DIM]

    ->  attn_out [LOCAL_BATCH, SEQ, HIDDEN]  dp S(batch)  tp P
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
    """x, attn_out [LOCAL_BATCH, LOCAL_SEQ, HIDDEN]  dp S(batch)  tp S(seq)

    ->  x [LOCAL_BATCH, LOCAL_SEQ, HIDDEN]  dp S(batch)  tp S(seq);  prob, expert [LOCAL_BATCH, LOCAL_SEQ, 2]
    dp S(batch)  tp S(seq);  rows [N, HIDDEN]  dp, tp S(batch);  counts [EXPERTS]
    """
    x = x + attn_out
    h = F.rms_norm(x, (HIDDEN,), ffn_norm, 1e-05)
    logits = F.linear(h.to(FLOAT), router.to(FLOAT))
    prob, expert = routing.choose(logits, 2, True)
    rows, counts = routing.sort_rows(h, expert, None, EXPERTS)
    return x, prob, expert, rows, counts


def ffn(arrivals, rows, up, gate, down):
    """arrivals [4, EXPERTS // 4];  rows [N, HIDDEN]  ep S(experts)  dp0 S(batch)

    ->  rows [N, HIDDEN]  ep S(experts)  dp0 S(batch)
    """
    counts = arrivals.sum((0,))
    up = routing.grouped_linear_ragged(rows, up, counts)
    act = F.silu(routing.grouped_linear_ragged(rows, gate, counts)) * up
    return routing.grouped_linear_ragged(act, down, counts)


def collect_rows(rows, prob, expert, x):
    """rows [N, HIDDEN]  dp, tp S(batch);  prob, expert [LOCAL_BATCH, LOCAL_SEQ, 2]  dp S(batch)
    tp S(seq);  x [LOCAL_BATCH, LOCAL_SEQ, HIDDEN]  dp S(batch)  tp S(seq)

    ->  x [LOCAL_BATCH, LOCAL_SEQ, HIDDEN]  dp S(batch)  tp S(seq)
    """
    return x + routing.collect_rows(rows, prob, expert, None, EXPERTS)


def layer_forward(x, cos, sin, w, tape):
    """layers.0 to layers.7.

    x [LOCAL_BATCH, LOCAL_SEQ, HIDDEN]  dp S(batch)  tp S(seq)

    ->  x [LOCAL_BATCH, LOCAL_SEQ, HIDDEN]  dp S(batch)  tp S(seq)
    """
    h = tape.run(attn_norm, x, w.attn_norm)
    h = all_gather(h, "tp", dim=1)  # 2.0 MiB x 2: S(seq) -> R
    attn_out = tape.run(attn, h, cos, sin, w.wqkv, w.wo)
    attn_out = reduce_scatter(attn_out, "tp", dim=1)  # 4.0 MiB x 2: P -> S(seq)
    x, prob, expert, rows, counts = tape.run(ffn_norm_router, x, attn_out, w.ffn_norm, w.router)
    arrivals = exchange_counts(counts, "ep")  # 64 B x 4: how many rows go where
    rows = send_rows(rows, counts, arrivals, "ep")  # rows of 2.0 KiB x 4: S(batch) -> S(experts)
    rows = tape.run(ffn, arrivals, rows, w.up, w.gate, w.down)
    rows = return_rows(rows, counts, arrivals, "ep")  # rows of 2.0 KiB x 4: S(experts) -> S(batch)
    tape.keep(counts, arrivals)
    return tape.run(collect_rows, rows, prob, expert, x)


def layer_backward(dx, tape):
    """The same, transposed, last line first."""
    drows, dprob, dx = tape.back(collect_rows, dx)
    counts, arrivals = tape.kept()
    drows = send_rows(drows, counts, arrivals, "ep")  # rows of 2.0 KiB x 4: back
    drows = tape.back(ffn, drows)
    drows = return_rows(drows, counts, arrivals, "ep")  # rows of 2.0 KiB x 4: back
    dx, dattn_out = tape.back(ffn_norm_router, dx, dprob, drows)
    dattn_out = all_gather(dattn_out, "tp", dim=1)  # 4.0 MiB x 2: of the whole
    dh = tape.back(attn, dattn_out)
    dh = reduce_scatter(dh, "tp", dim=1)  # 4.0 MiB x 2: each rank's part of the sum
    dx_2 = tape.back(attn_norm, dh)
    return dx + dx_2


def norm(x, norm):
    """x [LOCAL_BATCH, LOCAL_SEQ, HIDDEN]  dp S(batch)  tp S(seq)

    ->  x [LOCAL_BATCH, LOCAL_SEQ, HIDDEN]  dp S(batch)  tp S(seq)
    """
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
    """sums [2, LOCAL_BATCH, LOCAL_SEQ]  dp S(batch)  tp S(seq);  labels [LOCAL_BATCH, LOCAL_SEQ]
    dp S(batch)  tp S(seq)

    ->  loss []  dp, tp P
    """
    return vocabulary.cross_entropy_of_sums(sums, labels, -100)


def head_forward(x, labels, labels_2, w, tape):
    """head.

    x [LOCAL_BATCH, LOCAL_SEQ, HIDDEN]  dp S(batch)  tp S(seq);  labels [LOCAL_BATCH, LOCAL_SEQ]  dp S(batch)
    tp S(seq);  labels_2 [LOCAL_BATCH, SEQ]  dp S(batch)

    ->  loss []  dp, tp P
    """
    x = tape.run(norm, x, w.norm)
    x = all_gather(x, "tp", dim=1)  # 2.0 MiB x 2: S(seq) -> R
    h, top = tape.run(head, x, w.head)
    top = all_reduce_max(top, "tp")  # 8.0 KiB x 2: P -> I, the largest logit of all ranks
    sums = tape.run(class_sums, h, top, labels_2)
    sums = reduce_scatter(sums, "tp", dim=2)  # 16 KiB x 2: P -> S(seq)
    return tape.run(cross_entropy_of_sums, sums, labels)


def head_backward(dloss, tape):
    """The same, transposed, last line first."""
    dsums = tape.back(cross_entropy_of_sums, dloss)
    dsums = all_gather(dsums, "tp", dim=2)  # 16 KiB x 2: of the whole
    dh = tape.back(class_sums, dsums)
    dx = tape.back(head, dh)
    dx = reduce_scatter(dx, "tp", dim=1)  # 4.0 MiB x 2: each rank's part of the sum
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


def forward(run, i):
    """Micro-batch i, forward."""
    tape = run.tape(i)
    (embed_weights,), layers, (head_weights,) = run.weights
    inputs = run.inputs(i)
    cos = run.tables["cos"]
    sin = run.tables["sin"]
    x = embed_forward(inputs["tokens"], embed_weights, tape)
    for w in layers:
        x = layer_forward(x, cos, sin, w, tape)
    loss = head_forward(x, inputs["labels"], inputs["labels@2"], head_weights, tape)
    run.add_loss(loss)


def backward(run, i):
    """Micro-batch i, backward."""
    tape = run.tape(i)
    (embed_weights,), layers, (head_weights,) = run.weights
    dx = head_backward(run.seed, tape)
    for _ in layers:
        dx = layer_backward(dx, tape)
    embed_backward(dx, tape)


def valid(labels):
    """labels [LOCAL_BATCH, LOCAL_SEQ]  dp S(batch)  tp S(seq)  ->  count []  dp, tp P"""
    return (labels != -100).sum()


def count(run):
    """What the loss of each micro-batch is a sum over."""
    return [valid(run.inputs(i)["labels"]) for i in range(run.job.accumulate)]


def reduce_gradients(run):
    """Sum the gradients of weights that several ranks have."""
    run.reduce("dp")  # among 4 ranks, each with its own samples or part
    run.reduce("dp0")  # among 2 ranks, each with its own samples or part
    run.reduce("dp_tp")  # among 8 ranks, each with its own samples or part

"""Stage 1 of 2 of convnet: blocks.2 to blocks.3, classifier.  Mesh z 2  x 3  y 2.

Shapes are one rank's own. S split, I the same, R the same but used differently, P summands.
"""

import torch.nn.functional as F
from sizes import CHANNELS, DTYPE, LOCAL_BATCH, WIDTH

from moec.runtime import Slot, Weight, accumulate, all_reduce, first

WEIGHTS = {
    "block": {
        "norm": Weight("norm.weight", (WIDTH,), ((),), "x", "module", decay=False),
        "norm_bias": Weight("norm.bias", (WIDTH,), ((),), "x", "module", decay=False),
        "up": Weight("up.weight", (CHANNELS, WIDTH, 3, 3), (("y",), (), (), ()), "x", "module"),
        "up_bias": Weight("up.bias", (CHANNELS,), (("y",),), "x", "module", decay=False),
        "down": Weight("down.weight", (WIDTH, CHANNELS, 3, 3), ((), ("y",), (), ()), "x", "module"),
        "down_bias": Weight("down.bias", (WIDTH,), ((),), "x", "module", decay=False),
    },
    "classifier": {
        "skip": Weight("skip.weight", (WIDTH, WIDTH, 1, 1), ((), (), (), ()), "x", "module"),
        "skip_bias": Weight("skip.bias", (WIDTH,), ((),), "x", "module", decay=False),
        "norm": Weight("norm.weight", (WIDTH,), ((),), "x", "module", decay=False),
        "norm_bias": Weight("norm.bias", (WIDTH,), ((),), "x", "module", decay=False),
        "classifier": Weight("classifier.weight", (10, WIDTH), ((), ()), "x", "module"),
        "classifier_bias": Weight("classifier.bias", (10,), ((),), "x", "module", decay=False),
    },
}
UNITS = (
    ("block", ("blocks.2", "blocks.3")),
    ("classifier", ("",)),
)
INPUTS = {
    "label": (("x",),),
}
ACTIVATIONS_IN = (
    Slot("early", (LOCAL_BATCH, WIDTH, 8, 8), DTYPE, grad=True),
    Slot("x", (LOCAL_BATCH, WIDTH, 8, 8), DTYPE, grad=True),
)


def norm(x, norm, norm_bias):
    """x [LOCAL_BATCH, WIDTH, 8, 8]  x S(batch)  ->  norm_out [LOCAL_BATCH, WIDTH, 8, 8]  x S(batch)"""
    return F.group_norm(x, 1, norm, norm_bias)


def up_down(norm_out, down_bias, up, up_bias, down):
    """norm_out [LOCAL_BATCH, WIDTH, 8, 8]  x S(batch)  y R;  down_bias [WIDTH]  y P

    ->  down_out [LOCAL_BATCH, WIDTH, 8, 8]  x S(batch)  y P
    """
    return F.conv2d(F.gelu(F.conv2d(norm_out, up, up_bias, padding=(1, 1))), down, down_bias, padding=(1, 1))


def add(x, down_out):
    """x, down_out [LOCAL_BATCH, WIDTH, 8, 8]  x S(batch)  ->  x [LOCAL_BATCH, WIDTH, 8, 8]  x S(batch)"""
    return x + down_out


def block_forward(x, w, tape):
    """blocks.2 to blocks.3.  x [LOCAL_BATCH, WIDTH, 8, 8]  x S(batch)  ->  x [LOCAL_BATCH, WIDTH, 8, 8]
    x S(batch)"""
    down_bias = first(w.down_bias, "y")
    norm_out = tape.run(norm, x, w.norm, w.norm_bias)
    down_out = tape.run(up_down, norm_out, down_bias, w.up, w.up_bias, w.down)
    down_out = all_reduce(down_out, "y")  # 16 KiB x 2: P -> I
    return tape.run(add, x, down_out)


def block_backward(dx, w, tape):
    """The same, transposed, last line first."""
    dx, ddown_out = tape.back(add, dx)
    dnorm_out, ddown_bias = tape.back(up_down, ddown_out)
    dnorm_out = all_reduce(dnorm_out, "y")  # 16 KiB x 2: the ranks used it differently
    dx_2 = tape.back(norm, dnorm_out)
    accumulate(w.down_bias, ddown_bias)
    return dx + dx_2


def skip_to_classifier(
    early,
    x,
    label,
    skip,
    skip_bias,
    norm,
    norm_bias,
    classifier,
    classifier_bias,
):
    """early, x [LOCAL_BATCH, WIDTH, 8, 8]  x S(batch);  label [LOCAL_BATCH]  x S(batch)  ->  h, count_ []
    x P"""
    x = F.group_norm(x + F.conv2d(early, skip, skip_bias), 1, norm, norm_bias)
    h = F.cross_entropy(F.linear(x.mean((2, 3)), classifier, classifier_bias), label, reduction="sum")
    valid = label != -100
    count_ = valid.sum()
    return h, count_


def div(h, count_):
    """h []  x P;  count_ []  ->  h []  x P"""
    return h / count_


def classifier_forward(early, x, label, w, tape):
    """classifier.  early, x [LOCAL_BATCH, WIDTH, 8, 8]  x S(batch);  label [LOCAL_BATCH]  x S(batch)  ->
    h []  x P"""
    h, count_ = tape.run(
        skip_to_classifier,
        early,
        x,
        label,
        w.skip,
        w.skip_bias,
        w.norm,
        w.norm_bias,
        w.classifier,
        w.classifier_bias,
    )
    count_ = all_reduce(count_, "x")  # 8 B x 3: P -> I, the labels of all ranks
    return tape.run(div, h, count_)


def classifier_backward(dh, tape):
    """The same, transposed, last line first."""
    dh = tape.back(div, dh)
    dearly, dx = tape.back(skip_to_classifier, dh)
    return dearly, dx


def forward(run, i, received):
    """Micro-batch i, forward."""
    tape = run.tape(i)
    early, x = received
    blocks, (classifier_weights,) = run.weights
    inputs = run.inputs(i)
    for w in blocks:
        x = block_forward(x, w, tape)
    h = classifier_forward(early, x, inputs["label"], classifier_weights, tape)
    run.add_loss(h, same="y")


def backward(run, i):
    """Micro-batch i, backward."""
    tape = run.tape(i)
    blocks, (classifier_weights,) = run.weights
    dearly, dx = classifier_backward(run.seed.to(DTYPE), tape)
    for w in reversed(blocks):
        dx = block_backward(dx, w, tape)
    return dearly, dx


def reduce_gradients(run):
    """Sum the gradients of weights that several ranks have."""
    run.reduce("x")  # among 3 ranks, each with its own samples or part

"""Stage 0 of 2 of convnet: stem, blocks.0 to blocks.1.  Mesh z 2  x 3  y 2.

Shapes are one rank's own. S split, I the same, R the same but used differently, P summands.
"""

import torch.nn.functional as F
from sizes import CHANNELS, DTYPE, LOCAL_BATCH, WIDTH

from moec.runtime import Slot, Weight, accumulate, all_reduce, first

WEIGHTS = {
    "stem": {
        "stem": Weight("stem.weight", (WIDTH, 3, 3, 3), ((), (), (), ()), "x", "module"),
        "stem_bias": Weight("stem.bias", (WIDTH,), ((),), "x", "module", decay=False),
    },
    "block": {
        "norm": Weight("norm.weight", (WIDTH,), ((),), "x", "module", decay=False),
        "norm_bias": Weight("norm.bias", (WIDTH,), ((),), "x", "module", decay=False),
        "up": Weight("up.weight", (CHANNELS, WIDTH, 3, 3), (("y",), (), (), ()), "x", "module"),
        "up_bias": Weight("up.bias", (CHANNELS,), (("y",),), "x", "module", decay=False),
        "down": Weight("down.weight", (WIDTH, CHANNELS, 3, 3), ((), ("y",), (), ()), "x", "module"),
        "down_bias": Weight("down.bias", (WIDTH,), ((),), "x", "module", decay=False),
    },
}
UNITS = (
    ("stem", ("",)),
    ("block", ("blocks.0", "blocks.1")),
)
INPUTS = {
    "image": (("x",), (), (), ()),
}
GRADIENTS_IN = (
    Slot("dearly", (LOCAL_BATCH, WIDTH, 8, 8), DTYPE, grad=False),
    Slot("dx", (LOCAL_BATCH, WIDTH, 8, 8), DTYPE, grad=False),
)


def stem(image, stem, stem_bias):
    """image [LOCAL_BATCH, 3, 16, 16]  x S(batch)  ->  early [LOCAL_BATCH, WIDTH, 8, 8]  x S(batch)"""
    return F.gelu(F.conv2d(image, stem, stem_bias, (2, 2), (1, 1)))


def stem_forward(image, w, tape):
    """stem.  image [LOCAL_BATCH, 3, 16, 16]  x S(batch)  ->  early [LOCAL_BATCH, WIDTH, 8, 8]  x S(batch)"""
    return tape.run(stem, image, w.stem, w.stem_bias)


def stem_backward(dearly, tape):
    """The same, transposed, last line first."""
    tape.back(stem, dearly)


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
    """blocks.0 to blocks.1.  x [LOCAL_BATCH, WIDTH, 8, 8]  x S(batch)  ->  x [LOCAL_BATCH, WIDTH, 8, 8]
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


def forward(run, i):
    """Micro-batch i, forward."""
    tape = run.tape(i)
    (stem_weights,), blocks = run.weights
    inputs = run.inputs(i)
    early = stem_forward(inputs["image"], stem_weights, tape)
    x = early
    for w in blocks:
        x = block_forward(x, w, tape)
    return early, x


def backward(run, i, received):
    """Micro-batch i, backward."""
    tape = run.tape(i)
    dearly, dx = received
    (stem_weights,), blocks = run.weights
    for w in reversed(blocks):
        dx = block_backward(dx, w, tape)
    dearly = dearly + dx
    stem_backward(dearly, tape)


def reduce_gradients(run):
    """Sum the gradients of weights that several ranks have."""
    run.reduce("x")  # among 3 ranks, each with its own samples or part

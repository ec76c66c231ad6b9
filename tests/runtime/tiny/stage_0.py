"""Stage 0 of 2 of tiny: embedding and layer 0, by hand.  Shapes: tokens [B, T], x [B, T, D]."""

import torch
import torch.nn.functional as F
from layer import TABLE, layer_backward, layer_forward
from sizes import DTYPE, HIDDEN, LOCAL_BATCH, SEQ, VOCAB

from moec.runtime import Slot, Weight

WEIGHTS = {
    "embed": {"tokens": Weight("embed.weight", (VOCAB, HIDDEN), ((), ()), "tied", "normal 0.3", decay=False)},
    "layer": TABLE,
}
UNITS = (("embed", ("",)), ("layer", ("layers.0",)))
INPUTS = {"tokens": (("dp",), ())}
ACTIVATIONS_OUT = (Slot("x", (LOCAL_BATCH, SEQ, HIDDEN), DTYPE, True),)
GRADIENTS_IN = (Slot("dx", (LOCAL_BATCH, SEQ, HIDDEN), DTYPE, False),)


def embed(tokens, weight):
    return F.embedding(tokens, weight)


def make_tables():
    return {"scale": torch.full((), 0.5, dtype=DTYPE)}


def forward(run, i):
    tape = run.tape(i)
    (front,), layers = run.weights
    x = tape.run(embed, run.inputs(i)["tokens"], front.tokens)
    for w in layers:
        x = layer_forward(x, run.tables["scale"], w, tape)
    return (x,)


def backward(run, i, dx):
    tape = run.tape(i)
    (dx,) = dx
    for _ in run.weights["layer"]:
        dx = layer_backward(dx, tape)
    tape.back(embed, dx)
    return ()


def reduce_gradients(run):
    run.reduce("dp")
    run.reduce("tied")

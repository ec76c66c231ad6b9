"""Stage 1 of 2 of tiny: layer 1, and the head, whose weight is that of the embedding."""

import torch
import torch.nn.functional as F
from layer import TABLE, layer_backward, layer_forward
from sizes import DTYPE, HIDDEN, LOCAL_BATCH, SEQ, VOCAB

from moec.runtime import Slot, Weight

WEIGHTS = {
    "layer": TABLE,
    "head": {"tokens": Weight("embed.weight", (VOCAB, HIDDEN), ((), ()), "tied", "normal 0.3", decay=False)},
}
UNITS = (("layer", ("layers.1",)), ("head", ("",)))
INPUTS = {"labels": (("dp",), ())}
ACTIVATIONS_IN = (Slot("x", (LOCAL_BATCH, SEQ, HIDDEN), DTYPE, True),)


def loss(x, labels, weight):
    return F.cross_entropy(F.linear(x, weight).flatten(0, 1), labels.flatten(), reduction="sum")


def valid(labels):
    return (labels != -100).sum()


def make_tables():
    return {"scale": torch.full((), 0.5, dtype=DTYPE)}


def count(run):
    """Valid labels of each micro-batch."""
    return [valid(run.inputs(i)["labels"]) for i in range(run.job.accumulate)]


def forward(run, i, x):
    tape = run.tape(i)
    layers, (head,) = run.weights
    (x,) = x
    for w in layers:
        x = layer_forward(x, run.tables["scale"], w, tape)
    run.add_loss(tape.run(loss, x, run.inputs(i)["labels"], head.tokens), same="tp")


def backward(run, i):
    tape = run.tape(i)
    dx = tape.back(loss, run.seed)
    for _ in run.weights["layer"]:
        dx = layer_backward(dx, tape)
    return (dx,)


def reduce_gradients(run):
    run.reduce("dp")
    run.reduce("tied")

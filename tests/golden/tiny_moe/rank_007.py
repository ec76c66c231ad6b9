"""Rank 7 of 8 of tiny_moe: pp 1, ep 1, tp 1.  Stage 1 of 2, layers.2 to layers.3."""

import stage_1 as stage

RANK = 7
AXES = {"pp": 2, "ep": 2, "tp": 2}
COORDINATES = {"pp": 1, "ep": 1, "tp": 1}
GROUPS = {
    "ep": (5, 7),
    "tp": (6, 7),
}
PREVIOUS, NEXT = 3, None  # the ranks with the stages before and after
SLICES = {  # this rank's part of every weight that is split
    "layer": {
        "wq": "[32:64, :] of [64, 64]",
        "wk": "[32:64, :] of [64, 64]",
        "wv": "[32:64, :] of [64, 64]",
        "wo": "[:, 32:64] of [64, 64]",
        "up": "[2:4, 64:128, :] of [4, 128, 64]",
        "down": "[2:4, :, 64:128] of [4, 64, 128]",
    },
    "head": {
        "head": "[128:256, :] of [256, 64]",
    },
}


def step(run):
    """1F1B over 4 micro-batches: the last stage has nothing to fill and nothing to drain."""
    run.count_valid(stage.count(run), same="tp")
    x = run.receive(stage.ACTIVATIONS_IN, PREVIOUS)
    for i in range(3):
        stage.forward(run, i, x)
        dx = stage.backward(run, i)
        x = run.exchange(dx, stage.ACTIVATIONS_IN, PREVIOUS)
    stage.forward(run, 3, x)
    dx = stage.backward(run, 3)
    run.send(dx, PREVIOUS)
    stage.reduce_gradients(run)
    run.update()

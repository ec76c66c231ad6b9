"""Rank 511 of 512 of 30b_moe: pp 3, dp 1, ep 15, tp 3.  Stage 3 of 4, layers.12 to layers.15."""

import stage_3 as stage

RANK = 511
AXES = {"pp": 4, "dp": 2, "ep": 16, "tp": 4}
COORDINATES = {"pp": 3, "dp": 1, "ep": 15, "tp": 3}
GROUPS = {
    "dp": (447, 511),
    "dp_ep": range(387, 512, 4),
    "ep": range(451, 512, 4),
    "tp": range(508, 512),
}
PREVIOUS, NEXT = 383, None  # the ranks with the stages before and after
SLICES = {  # this rank's part of every weight that is split
    "layer": {
        "wq": "[1536:2048, :] of [2048, 2048]",
        "wk": "[1536:2048, :] of [2048, 2048]",
        "wv": "[1536:2048, :] of [2048, 2048]",
        "wo": "[:, 1536:2048] of [2048, 2048]",
        "up": "[60:64, 5376:7168, :] of [64, 7168, 2048]",
        "down": "[60:64, :, 5376:7168] of [64, 2048, 7168]",
    },
    "head": {
        "head": "[24000:32000, :] of [32000, 2048]",
    },
}


def step(run):
    """1F1B over 8 micro-batches: the last stage has nothing to fill and nothing to drain."""
    run.count_valid(stage.count(run), same="tp")
    x = run.receive(stage.ACTIVATIONS_IN, PREVIOUS)
    for i in range(7):
        stage.forward(run, i, x)
        dx = stage.backward(run, i)
        x = run.exchange(dx, stage.ACTIVATIONS_IN, PREVIOUS)
    stage.forward(run, 7, x)
    dx = stage.backward(run, 7)
    run.send(dx, PREVIOUS)
    stage.reduce_gradients(run)
    run.update()

"""Rank 63 of 64 of dense: pp 3, dp 3, tp 3.  Stage 3 of 4, layers.17 to layers.21."""

import stage_3 as stage

RANK = 63
AXES = {"pp": 4, "dp": 4, "tp": 4}
COORDINATES = {"pp": 3, "dp": 3, "tp": 3}
GROUPS = {
    "dp": range(51, 64, 4),
    "tp": range(60, 64),
}
PREVIOUS, NEXT = 47, None  # the ranks with the stages before and after
SLICES = {  # this rank's part of every weight that is split
    "layer": {
        "wq": "[1536:2048, :] of [2048, 2048]",
        "wk": "[384:512, :] of [512, 2048]",
        "wv": "[384:512, :] of [512, 2048]",
        "wo": "[:, 1536:2048] of [2048, 2048]",
        "gate": "[4224:5632, :] of [5632, 2048]",
        "up": "[4224:5632, :] of [5632, 2048]",
        "down": "[:, 4224:5632] of [2048, 5632]",
    },
    "head": {
        "head": "[24003:32003, :] of [32003, 2048]",
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

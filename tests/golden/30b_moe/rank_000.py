"""Rank 0 of 512 of 30b_moe: pp 0, dp 0, ep 0, tp 0.  Stage 0 of 4, layers.0 to layers.3."""

import stage_0 as stage

RANK = 0
AXES = {"pp": 4, "dp": 2, "ep": 16, "tp": 4}
COORDINATES = {"pp": 0, "dp": 0, "ep": 0, "tp": 0}
GROUPS = {
    "dp": (0, 64),
    "dp_ep": range(0, 125, 4),
    "ep": range(0, 61, 4),
    "tp": range(0, 4),
}
PREVIOUS, NEXT = None, 128  # the ranks with the stages before and after
SLICES = {  # this rank's part of every weight that is split
    "embed": {
        "embed": "[0:8000, :] of [32000, 2048]",
    },
    "layer": {
        "wq": "[0:512, :] of [2048, 2048]",
        "wk": "[0:512, :] of [2048, 2048]",
        "wv": "[0:512, :] of [2048, 2048]",
        "wo": "[:, 0:512] of [2048, 2048]",
        "up": "[0:4, 0:1792, :] of [64, 7168, 2048]",
        "down": "[0:4, :, 0:1792] of [64, 2048, 7168]",
    },
}


def step(run):
    """1F1B over 8 micro-batches: 3 forward to fill, 5 forward and backward in turn, 3 backward to drain."""
    run.count_valid(())
    for i in range(3):
        y = stage.forward(run, i)
        run.send(y, NEXT)
    for i in range(5):
        y = stage.forward(run, i + 3)
        dy = run.exchange(y, stage.GRADIENTS_IN, NEXT)
        stage.backward(run, i, dy)
    for i in range(5, 8):
        dy = run.receive(stage.GRADIENTS_IN, NEXT)
        stage.backward(run, i, dy)
    stage.reduce_gradients(run)
    run.update()

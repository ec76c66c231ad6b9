"""Rank 0 of 64 of dense: pp 0, dp 0, tp 0.  Stage 0 of 4, layers.0 to layers.4."""

import stage_0 as stage

RANK = 0
AXES = {"pp": 4, "dp": 4, "tp": 4}
COORDINATES = {"pp": 0, "dp": 0, "tp": 0}
GROUPS = {
    "dp": range(0, 13, 4),
    "tp": range(0, 4),
}
PREVIOUS, NEXT = None, 16  # the ranks with the stages before and after
SLICES = {  # this rank's part of every weight that is split
    "embed": {
        "embed": "[0:8001, :] of [32003, 2048]",
    },
    "layer": {
        "wq": "[0:512, :] of [2048, 2048]",
        "wk": "[0:128, :] of [512, 2048]",
        "wv": "[0:128, :] of [512, 2048]",
        "wo": "[:, 0:512] of [2048, 2048]",
        "gate": "[0:1408, :] of [5632, 2048]",
        "up": "[0:1408, :] of [5632, 2048]",
        "down": "[:, 0:1408] of [2048, 5632]",
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

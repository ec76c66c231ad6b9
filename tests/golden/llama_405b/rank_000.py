"""Rank 0 of 128 of llama_405b: pp 0, dp 0, tp 0.  Stage 0 of 8, layers.0 to layers.14."""

import stage_0 as stage

RANK = 0
AXES = {"pp": 8, "dp": 2, "tp": 8}
COORDINATES = {"pp": 0, "dp": 0, "tp": 0}
GROUPS = {
    "dp": (0, 8),
    "tp": range(0, 8),
}
PREVIOUS, NEXT = None, 16  # the ranks with the stages before and after
SLICES = {  # this rank's part of every weight that is split
    "embed": {
        "embed": "[0:16032, :] of [128256, 16384]",
    },
    "layer": {
        "wq": "[0:2048, :] of [16384, 16384]",
        "wk": "[0:128, :] of [1024, 16384]",
        "wv": "[0:128, :] of [1024, 16384]",
        "wo": "[:, 0:2048] of [16384, 16384]",
        "gate": "[0:6656, :] of [53248, 16384]",
        "up": "[0:6656, :] of [53248, 16384]",
        "down": "[:, 0:6656] of [16384, 53248]",
    },
}


def step(run):
    """1F1B over 16 micro-batches: 7 forward to fill, 9 forward and backward in turn, 7 backward to drain."""
    run.count_valid(())
    for i in range(7):
        y = stage.forward(run, i)
        run.send(y, NEXT)
    for i in range(9):
        y = stage.forward(run, i + 7)
        dy = run.exchange(y, stage.GRADIENTS_IN, NEXT)
        stage.backward(run, i, dy)
    for i in range(9, 16):
        dy = run.receive(stage.GRADIENTS_IN, NEXT)
        stage.backward(run, i, dy)
    stage.reduce_gradients(run)
    run.update()

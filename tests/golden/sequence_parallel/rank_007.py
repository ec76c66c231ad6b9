"""Rank 7 of 8 of sequence_parallel: dp.0 1, dp.1 1, tp 1.  The only stage, layers.0 to layers.7."""

import stage_0 as stage

RANK = 7
AXES = {"dp.0": 2, "dp.1": 2, "tp": 2}
COORDINATES = {"dp.0": 1, "dp.1": 1, "tp": 1}
GROUPS = {
    "dp": range(1, 8, 2),
    "dp0": (3, 7),
    "dp_tp": range(0, 8),
    "ep": range(4, 8),
    "tp": (6, 7),
}
PREVIOUS, NEXT = None, None  # the ranks with the stages before and after
SLICES = {  # this rank's part of every weight that is split
    "embed": {
        "embed": "[4096:8192, :] of [8192, 512]",
    },
    "layer": {
        "wq": "[256:512, :] of [512, 512]",
        "wk": "[256:512, :] of [512, 512]",
        "wv": "[256:512, :] of [512, 512]",
        "wo": "[:, 256:512] of [512, 512]",
        "gate": "[6:8, :, :] of [8, 1408, 512]",
        "up": "[6:8, :, :] of [8, 1408, 512]",
        "down": "[6:8, :, :] of [8, 512, 1408]",
    },
    "head": {
        "head": "[4096:8192, :] of [8192, 512]",
    },
}


def step(run):
    """GPipe over 2 micro-batches."""
    run.count_valid(stage.count(run))
    for i in range(2):
        stage.forward(run, i)
    for i in range(2):
        stage.backward(run, i)
    stage.reduce_gradients(run)
    run.update()

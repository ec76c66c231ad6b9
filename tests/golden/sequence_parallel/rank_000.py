"""Rank 0 of 8 of sequence_parallel: dp.0 0, dp.1 0, tp 0.  The only stage, layers.0 to layers.7."""

import stage_0 as stage

RANK = 0
AXES = {"dp.0": 2, "dp.1": 2, "tp": 2}
COORDINATES = {"dp.0": 0, "dp.1": 0, "tp": 0}
GROUPS = {
    "dp": range(0, 7, 2),
    "dp0": (0, 4),
    "dp_tp": range(0, 8),
    "ep": range(0, 4),
    "tp": (0, 1),
}
PREVIOUS, NEXT = None, None  # the ranks with the stages before and after
SLICES = {  # this rank's part of every weight that is split
    "embed": {
        "embed": "[0:4096, :] of [8192, 512]",
    },
    "layer": {
        "wq": "[0:256, :] of [512, 512]",
        "wk": "[0:256, :] of [512, 512]",
        "wv": "[0:256, :] of [512, 512]",
        "wo": "[:, 0:256] of [512, 512]",
        "gate": "[0:2, :, :] of [8, 1408, 512]",
        "up": "[0:2, :, :] of [8, 1408, 512]",
        "down": "[0:2, :, :] of [8, 512, 1408]",
    },
    "head": {
        "head": "[0:4096, :] of [8192, 512]",
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

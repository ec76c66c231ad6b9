"""Rank 0 of 12 of convnet: z 0, x 0, y 0.  Stage 0 of 2, blocks.0 to blocks.1."""

import stage_0 as stage

RANK = 0
AXES = {"z": 2, "x": 3, "y": 2}
COORDINATES = {"z": 0, "x": 0, "y": 0}
GROUPS = {
    "x": range(0, 5, 2),
    "y": (0, 1),
}
PREVIOUS, NEXT = None, 6  # the ranks with the stages before and after
SLICES = {  # this rank's part of every weight that is split
    "block": {
        "up": "[0:32, :, :, :] of [64, 32, 3, 3]",
        "up_bias": "[0:32] of [64]",
        "down": "[:, 0:32, :, :] of [32, 64, 3, 3]",
    },
}


def step(run):
    """GPipe over 4 micro-batches: all forward, then all backward."""
    for i in range(4):
        y = stage.forward(run, i)
        run.send(y, NEXT)
    for i in range(4):
        dy = run.receive(stage.GRADIENTS_IN, NEXT)
        stage.backward(run, i, dy)
    stage.reduce_gradients(run)
    run.update()

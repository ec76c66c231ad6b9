"""Rank 11 of 12 of convnet: z 1, x 2, y 1.  Stage 1 of 2, blocks.2 to blocks.3."""

import stage_1 as stage

RANK = 11
AXES = {"z": 2, "x": 3, "y": 2}
COORDINATES = {"z": 1, "x": 2, "y": 1}
GROUPS = {
    "x": range(7, 12, 2),
    "y": (10, 11),
}
PREVIOUS, NEXT = 5, None  # the ranks with the stages before and after
SLICES = {  # this rank's part of every weight that is split
    "block": {
        "up": "[32:64, :, :, :] of [64, 32, 3, 3]",
        "up_bias": "[32:64] of [64]",
        "down": "[:, 32:64, :, :] of [32, 64, 3, 3]",
    },
}


def step(run):
    """GPipe over 4 micro-batches: all forward, then all backward."""
    for i in range(4):
        x = run.receive(stage.ACTIVATIONS_IN, PREVIOUS)
        stage.forward(run, i, x)
    for i in range(4):
        dx = stage.backward(run, i)
        run.send(dx, PREVIOUS)
    stage.reduce_gradients(run)
    run.update()

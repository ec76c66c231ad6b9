"""Rank 0 of 8 of mixer_moe: pp 0, ep 0, tp 0.  Stage 0 of 2, blocks.0 to blocks.1."""

import stage_0 as stage

RANK = 0
AXES = {"pp": 2, "ep": 2, "tp": 2}
COORDINATES = {"pp": 0, "ep": 0, "tp": 0}
GROUPS = {
    "ep": (0, 2),
    "tp": (0, 1),
}
PREVIOUS, NEXT = None, 4  # the ranks with the stages before and after
SLICES = {  # this rank's part of every weight that is split
    "block": {
        "mix_up": "[0:24, :] of [48, 16]",
        "mix_up_bias": "[0:24] of [48]",
        "mix_down": "[:, 0:24] of [16, 48]",
        "up": "[0:4, 0:48, :] of [8, 96, 64]",
        "down": "[0:4, :, 0:48] of [8, 64, 96]",
    },
}


def step(run):
    """1F1B over 4 micro-batches: 1 forward to fill, 3 forward and backward in turn, 1 backward to drain."""
    run.count_valid(())
    y = stage.forward(run, 0)
    run.send(y, NEXT)
    for i in range(3):
        y = stage.forward(run, i + 1)
        dy = run.exchange(y, stage.GRADIENTS_IN, NEXT)
        stage.backward(run, i, dy)
    dy = run.receive(stage.GRADIENTS_IN, NEXT)
    stage.backward(run, 3, dy)
    stage.reduce_gradients(run)
    run.update()

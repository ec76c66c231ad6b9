"""Rank 7 of 8 of mixer_moe: pp 1, ep 1, tp 1.  Stage 1 of 2, blocks.2 to blocks.3."""

import stage_1 as stage

RANK = 7
AXES = {"pp": 2, "ep": 2, "tp": 2}
COORDINATES = {"pp": 1, "ep": 1, "tp": 1}
GROUPS = {
    "ep": (5, 7),
    "tp": (6, 7),
}
PREVIOUS, NEXT = 3, None  # the ranks with the stages before and after
SLICES = {  # this rank's part of every weight that is split
    "block": {
        "mix_up": "[24:48, :] of [48, 16]",
        "mix_up_bias": "[24:48] of [48]",
        "mix_down": "[:, 24:48] of [16, 48]",
        "up": "[4:8, 48:96, :] of [8, 96, 64]",
        "down": "[4:8, :, 48:96] of [8, 64, 96]",
    },
}


def step(run):
    """1F1B over 4 micro-batches: the last stage has nothing to fill and nothing to drain."""
    run.count_valid(stage.count(run), same="tp")
    x = run.receive(stage.ACTIVATIONS_IN, PREVIOUS)
    for i in range(3):
        stage.forward(run, i, x)
        dx = stage.backward(run, i)
        x = run.exchange(dx, stage.ACTIVATIONS_IN, PREVIOUS)
    stage.forward(run, 3, x)
    dx = stage.backward(run, 3)
    run.send(dx, PREVIOUS)
    stage.reduce_gradients(run)
    run.update()

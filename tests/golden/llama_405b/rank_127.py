"""Rank 127 of 128 of llama_405b: pp 7, dp 1, tp 7.  Stage 7 of 8, layers.111 to layers.125."""

import stage_7 as stage

RANK = 127
AXES = {"pp": 8, "dp": 2, "tp": 8}
COORDINATES = {"pp": 7, "dp": 1, "tp": 7}
GROUPS = {
    "dp": (119, 127),
    "tp": range(120, 128),
}
PREVIOUS, NEXT = 111, None  # the ranks with the stages before and after
SLICES = {  # this rank's part of every weight that is split
    "layer": {
        "wq": "[14336:16384, :] of [16384, 16384]",
        "wk": "[896:1024, :] of [1024, 16384]",
        "wv": "[896:1024, :] of [1024, 16384]",
        "wo": "[:, 14336:16384] of [16384, 16384]",
        "gate": "[46592:53248, :] of [53248, 16384]",
        "up": "[46592:53248, :] of [53248, 16384]",
        "down": "[:, 46592:53248] of [16384, 53248]",
    },
    "head": {
        "head": "[112224:128256, :] of [128256, 16384]",
    },
}


def step(run):
    """1F1B over 16 micro-batches: the last stage has nothing to fill and nothing to drain."""
    run.count_valid(stage.count(run), same="tp")
    x = run.receive(stage.ACTIVATIONS_IN, PREVIOUS)
    for i in range(15):
        stage.forward(run, i, x)
        dx = stage.backward(run, i)
        x = run.exchange(dx, stage.ACTIVATIONS_IN, PREVIOUS)
    stage.forward(run, 15, x)
    dx = stage.backward(run, 15)
    run.send(dx, PREVIOUS)
    stage.reduce_gradients(run)
    run.update()

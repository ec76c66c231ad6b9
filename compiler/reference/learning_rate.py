"""The learning rate of a step, read off a line through the points that a plan names."""

import numpy as np


def learning_rate(step: int, lr: float, warmup: int, decay: str, steps: int | None, final_lr: float) -> float:
    """From 0 before the first step up to `lr` after `warmup`, and down to `final_lr` after `steps`.

    A cosine falls as the square of the cosine of an angle that grows by a line, from none to a right angle.
    """
    rising = float(np.interp(step, [0, warmup], [0.0, lr])) if warmup else lr
    if decay == "constant" or step <= warmup:
        return rising
    assert steps is not None, "a decay ends somewhere"
    if decay == "linear":
        return float(np.interp(step, [warmup, steps], [lr, final_lr]))
    angle = np.interp(step, [warmup, steps], [0.0, np.pi / 2])
    return final_lr + (lr - final_lr) * float(np.cos(angle)) ** 2

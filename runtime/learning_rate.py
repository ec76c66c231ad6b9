"""The learning rate of a step, a pure function of the step's number, so that a resumed run goes on exactly."""

from dataclasses import dataclass
from math import cos, pi
from typing import Literal


@dataclass(frozen=True, slots=True)
class LearningRate:
    """A linear rise to `peak` in `warmup` steps, and a fall from there to `last` at `steps`, which it stays at.

    The rise is that of Goyal et al. (Accurate, large minibatch SGD, 2017), the fall by a cosine that of Loshchilov and
    Hutter (SGDR, 2017, equation 5) without restarts.
    """

    peak: float
    warmup: int = 0
    decay: Literal["constant", "cosine", "linear"] = "constant"
    steps: int | None = None  # where the decay ends, if there is one
    last: float = 0.0

    def of(self, step: int) -> float:
        """That of the update that ends a step; the first is 1, the first at `peak` is `warmup`."""
        if step < self.warmup:
            return self.peak * step / self.warmup
        if self.decay == "constant" or self.steps is None:
            return self.peak
        done = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
        left = (1.0 + cos(pi * done)) / 2.0 if self.decay == "cosine" else 1.0 - done
        return self.last + (self.peak - self.last) * left

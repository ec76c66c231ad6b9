"""What is recorded of a step."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite


@dataclass(frozen=True, slots=True)
class Metrics:
    """Of one step. Times are in seconds, memory in bytes."""

    step: int  # counted over resumes
    loss: float
    lr: float
    grad_norm: float  # before clipping
    tokens: int
    seconds: float
    compute: float  # what is left of the seconds; the two others are means over the ranks
    communication: float  # blocked in collectives, sends and receives
    data: float  # waited for samples
    memory: int  # of a rank of the fullest stage, at the peak so far
    skipped: bool
    experts: Mapping[str, list[int]]  # how often each was chosen, by router
    dropped: Mapping[str, int]  # choices without room

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def figures(self) -> dict[str, float]:
        """What can be drawn as a curve."""
        return {
            "loss": self.loss,
            "lr": self.lr,
            "grad_norm": self.grad_norm,
            "tokens_per_second": self.tokens_per_second,
            "seconds": self.seconds,
            "compute": self.compute,
            "communication": self.communication,
            "data": self.data,
            "memory": self.memory,
        }

    @property
    def record(self) -> dict[str, object]:
        """As JSON, which has no number that is not finite: such a one is null."""
        figures = {name: x if isfinite(x) else None for name, x in self.figures.items()}
        record: dict[str, object] = {"step": self.step, **figures, "tokens": self.tokens}
        if self.skipped:
            record["skipped"] = True
        if self.experts:
            record |= {"experts": self.experts, "dropped": self.dropped}
        return record

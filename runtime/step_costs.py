"""What a step cost the ranks: time blocked in communication, time waited for data, and memory at its peak."""

import resource
import sys
from typing import Protocol

import torch
from torch import Tensor

from moec.runtime.place import Place

_KIB = 1 if sys.platform == "darwin" else 1024  # of what the system counts in


class Talking(Protocol):
    """A communicator that knows how long it was blocked."""

    waited: float


class Reading(Protocol):
    """A run that knows how long its last step waited for data."""

    waited_for_data: float


class StepCosts:
    """Means over all ranks, added up with loss and norm.  Satisfies `Summand`.

    What a rank waits after it has said how long it waited, above all for that sum, counts in its next step.
    """

    def __init__(self, ranks: Talking, run: Reading, place: Place, world: int, device: torch.device) -> None:
        self.communication = 0.0  # seconds of the last step
        self.data = 0.0
        self.memory = 0.0  # bytes of a rank of the fullest stage, at the peak so far
        self._ranks = ranks
        self._run = run
        self._stage = place.stage
        self._stages = place.axes[place.pipeline] if place.pipeline else 1
        self._world = world
        self._device = device
        self._since = ranks.waited
        self._left = 0.0  # of the step before

    def begin(self) -> None:
        """Before a step: what was waited since the last one is no part of either."""
        self._since = self._ranks.waited - self._left

    def end(self) -> None:
        """After it."""
        self._left = self._ranks.waited - self._since

    def mine(self) -> Tensor:
        waited = self._ranks.waited
        numbers = [waited - self._since, self._run.waited_for_data] + [0.0] * self._stages
        numbers[2 + self._stage] = _peak(self._device) * self._stages
        self._since = waited
        return torch.tensor(numbers, dtype=torch.float64).to(self._device)

    def told(self, total: Tensor) -> None:
        self.communication, self.data, *memory = [x / self._world for x in total.tolist()]
        self.memory = max(memory)


def _peak(device: torch.device) -> int:
    """Bytes: of a GPU what tensors took, of a CPU what the process did."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB

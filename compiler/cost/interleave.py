"""The interleaved schedule (Narayanan et al., 2021, section 2.2.2): every rank has several slices of the model.

As Megatron-LM orders it: micro-batches go through a slice in groups of as many as there are stages. A message takes the
time of who sends it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from moec.compiler.cost.pass_time import PassTime
from moec.compiler.cost.simulate import Message, Task, Work


@dataclass(frozen=True, slots=True)
class Interleaved:
    """A pipeline of so many stages, each with so many slices."""

    stages: int
    slices: int
    batches: int

    def tasks(self, passes: Sequence[tuple[PassTime, PassTime]], messages: Sequence[float]) -> list[list[Task]]:
        """`messages`: seconds from each stage to the next, in a ring; sends are buffered."""
        return [self._of_stage(stage, passes[stage], messages) for stage in range(self.stages)]

    def turns(self, stage: int) -> list[tuple[str, int]]:
        """What a stage computes, in order: forwards and backwards of a slice, of a micro-batch."""
        return [("forward" if forward else "backward", self._place(turn)[0]) for forward, turn in self._order(stage)]

    def _of_stage(self, stage: int, times: tuple[PassTime, PassTime], messages: Sequence[float]) -> list[Task]:
        found: list[Task] = []
        forth, back = messages[stage], messages[stage - 1]
        for forward, turn in self._order(stage):
            found += self._forward(stage, turn, times[0], forth) if forward else self._back(stage, turn, times[1], back)
        return found

    def _order(self, stage: int) -> list[tuple[bool, int]]:
        """Whether forward, and of which turn."""
        turns = self.batches * self.slices
        fill = min(turns, 2 * (self.stages - 1 - stage) + (self.slices - 1) * self.stages)
        order = [(True, turn) for turn in range(fill)]
        for turn in range(turns - fill):
            order += [(True, fill + turn), (False, turn)]
        return order + [(False, turn) for turn in range(turns - fill, turns)]

    def _place(self, turn: int) -> tuple[int, int]:
        """Micro-batch and slice of a turn, forward."""
        group, within = divmod(turn, self.stages * self.slices)
        piece, batch = divmod(within, self.stages)
        return group * self.stages + batch, piece

    def _forward(self, stage: int, turn: int, time: PassTime, message: float) -> list[Task]:
        batch, piece = self._place(turn)
        place, last = piece * self.stages + stage, self.stages * self.slices - 1
        sends = place < last
        found: list[Task] = []
        if place > 0:
            found.append(Message((stage - 1) % self.stages, ("x", batch, place), 0.0, False))
        found.append(Work("forward", batch, self._seconds(time, piece) + (message if sends else 0.0), piece))
        if sends:
            found.append(Message((stage + 1) % self.stages, ("x", batch, place + 1), 0.0, True))
        return found

    def _back(self, stage: int, turn: int, time: PassTime, message: float) -> list[Task]:
        batch, mirrored = self._place(turn)
        piece = self.slices - 1 - mirrored
        place, last = piece * self.stages + stage, self.stages * self.slices - 1
        found: list[Task] = []
        if place < last:
            found.append(Message((stage + 1) % self.stages, ("dx", batch, place), 0.0, False))
        seconds = self._seconds(time, mirrored) + (message if place else 0.0)
        found.append(Work("backward", batch, seconds, piece))
        if place:
            found.append(Message((stage - 1) % self.stages, ("dx", batch, place - 1), 0.0, True))
        return found

    def _seconds(self, time: PassTime, piece: int) -> float:
        """A slice of the layers, with what comes before the first and after the last in the order of the pass."""
        before, after = time.edges
        layers = (time.seconds - before - after) / self.slices
        return layers + (before if piece == 0 else 0.0) + (after if piece == self.slices - 1 else 0.0)

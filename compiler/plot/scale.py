"""From values to places on a chart: a range that holds all of them, and round numbers to mark in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

_MARKS = 5


@dataclass(frozen=True, slots=True)
class Scale:
    """A line from `least`, which lies at `start`, to `most`, which lies at `end`."""

    least: float
    most: float
    start: float
    end: float

    @staticmethod
    def of(values: Sequence[float], start: float, end: float, zero: bool = False) -> "Scale":
        """That of these values, from 0 on if asked; with some room where all are one."""
        least, most = min(values, default=0.0), max(values, default=1.0)
        if zero:
            least, most = min(0.0, least), max(0.0, most)
        if least == most:
            room = abs(least) * 0.1 or 1.0
            least, most = (least, most + room) if zero else (least - room, most + room)
        return Scale(least, most, start, end)

    def place(self, value: float) -> float:
        return self.start + (value - self.least) / (self.most - self.least) * (self.end - self.start)

    def marks(self, whole: bool = False, unit: float = 1.0) -> list[float]:
        """About five round numbers within, counted in a unit."""
        least, most = self.least / unit, self.most / unit
        rough = (most - least) / _MARKS
        power = 10.0 ** floor(log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
        if whole:
            step = max(1.0, round(step))
        return [n * step * unit for n in range(ceil(least / step - 1e-9), floor(most / step + 1e-9) + 1)]

"""What is to be measured: how many ranks at once, on which device, and how thoroughly."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Device: TypeAlias = Literal["cpu", "cuda"]
Precision: TypeAlias = Literal["half", "single", "double"]

PRECISIONS: tuple[Precision, ...] = ("half", "single", "double")

MAIN: dict[Device, Precision] = {"cpu": "single", "cuda": "half"}
"""What a machine is mostly trained in: the shape of its curve is found there, and only the rate in the others."""


@dataclass(frozen=True, slots=True)
class Order:
    device: Device
    ranks: int
    quick: bool

    @property
    def main(self) -> Precision:
        return MAIN[self.device]

    @property
    def every(self) -> int:
        """Of the shapes, one of so many."""
        return 2 if self.quick else 1

    @property
    def passes(self) -> int:
        """Through all of them."""
        return 3 if self.quick else 5

    @property
    def window(self) -> float:
        """Seconds that a shape is looked at in each."""
        return 0.004 if self.quick else 0.01

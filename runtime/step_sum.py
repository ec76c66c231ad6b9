"""What rides along in the one sum over all ranks that ends a step."""

from typing import Protocol

from torch import Tensor


class Summand(Protocol):
    """Numbers of one rank that are wanted of all: asked for at the end of a step, and told their sum."""

    def mine(self) -> Tensor:
        """This rank's, float64 [n] on its device, with the same n on all ranks in every step."""
        ...

    def told(self, total: Tensor) -> None:
        """Their sum over all ranks, float64 [n]."""
        ...

"""What is done beside a program, or otherwise than its text says: the practices of frameworks.

An estimate of moec's own programs takes the default, which changes nothing. Others are for asking what a practice would
gain, and for holding the model against published runs of other frameworks.
"""

from dataclasses import dataclass
from typing import Literal

Recompute = Literal["none", "attention", "full"]


@dataclass(frozen=True, slots=True)
class Practice:
    """Each field says what is different from the emitted program."""

    recompute: Recompute = "none"
    """What a backward computes again: nothing, the core of attention (Korthikanti et al., 2022), or whole layers."""
    interleave: int = 1
    """Slices of the model that a rank has, in the interleaved schedule (Narayanan et al., 2021)."""
    sharded_state: int = 1
    """Ranks that share the optimizer's state of what they all have: a distributed optimizer, ZeRO-1. 1: none do."""
    fused: bool = False
    """Operators that go through memory element by element run as one kernel where nothing stands between them."""
    overlapped_gradients: bool = False
    """Sums of gradients run beside the last backward, and gathers of weights beside the first forward."""
    overlapped_experts: bool = False
    """The exchange of experts' rows runs beside the computing of another micro-batch."""
    float8: bool = False
    """Matrix products are computed in 8 bits."""
    gradient_bytes: int = 0
    """Bytes of an element of a gradient as it is kept and summed; 0: as the program does."""

"""What is done beside a program, or otherwise than its text says: the practices of frameworks.

An estimate of moec's own programs takes the default, which changes nothing. Others are for asking what a practice would
gain, and for holding the model against published runs of other frameworks.
"""

from dataclasses import dataclass
from typing import Literal

Recompute = Literal["none", "attention", "operators", "full"]


@dataclass(frozen=True, slots=True)
class Practice:
    """Each field says what is different from the emitted program."""

    recompute: Recompute = "none"
    """What a backward computes again: nothing, the core of attention (Korthikanti et al., 2022), all but attention,
    exchanges and every second product (torchtitan), or whole layers."""
    recomputed_layers: int = 0
    """Of a rank, in how many layers; 0: in all."""
    interleave: int = 1
    """Slices of the model that a rank has, in the interleaved schedule (Narayanan et al., 2021)."""
    sharded_state: int = 1
    """Ranks that share the optimizer's state of what they all have: a distributed optimizer, ZeRO-1. 1: none do."""
    sharded_weights: bool = False
    """They share weights and gradients too, and gather weights for every pass: ZeRO-3, FSDP."""
    fused: bool = False
    """Operators that go through memory element by element run as one kernel where nothing stands between them, products
    add to gradients themselves, tensors lie in memory as the next kernel wants them, and end with their last use."""
    spare_gradients: bool = False
    """Of each shape that weights of layers have a tensor stays, which stands for a gradient that a product has added up
    itself (Transformer Engine)."""
    weighs_early: bool = False
    """What an expert's last product reads is weighed, not what it returns, which then need not be kept (Megatron-Core
    since 2025)."""
    gathers_again: bool = False
    """What sequence parallelism gathers is not kept for the backward, but gathered again (Korthikanti et al., 2022);
    with `fused` kernels, or else copies of it are what is kept."""
    overlapped_products: bool = False
    """In a backward what tensor parallelism exchanges travels beside products of gradients."""
    overlapped_gradients: bool = False
    """Sums of gradients run beside the last backward, and gathers of weights beside the first forward."""
    overlapped_experts: bool = False
    """The exchange of experts' rows runs beside the computing of another micro-batch."""
    scattered_messages: int = 1
    """Ranks of a node that would send the same to the next stage, and send a part each, which the next ones gather
    (Narayanan et al., 2021)."""
    float8: bool = False
    """Matrix products are computed in 8 bits."""
    gradient_bytes: int = 0
    """Bytes of an element of a gradient as it is kept and summed; 0: as the program does."""
    graphed: bool = False
    """Kernels are started from a recorded graph: the host takes no time."""

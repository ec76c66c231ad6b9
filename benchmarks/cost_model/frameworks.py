"""What the frameworks of published runs do, where a source says nothing else; by what their names contain."""

from collections.abc import Sequence

BEFORE_SEQUENCE_PARALLELISM = ("Megatron-LM 2021", "Megatron-LM v1", "DeepSpeed")

BEFORE_FUSED_ATTENTION = (*BEFORE_SEQUENCE_PARALLELISM, "Megatron-LM 2022")
"""They have no distributed optimizer either, and sum gradients after the last backward."""

HALF_GRADIENTS = (*BEFORE_FUSED_ATTENTION, "Composer", "NeMo", "Bridge")
"""They sum gradients in 16 bits: fp16 without an option for more, and the recipes of NeMo and Composer."""

EAGER = ("Composer",)
"""Their models are plain modules of PyTorch, not compiled: every operator is a kernel, attention alone is fused."""

OVERLAP_PRODUCTS = ("Megatron-Core r0.8", "NeMo", "Bridge")
"""They run collectives of tp beside the products that need them (--tp-comm-overlap)."""


TRANSFORMER_ENGINE = ("TE ", "NeMo", "Bridge")
"""get_dummy_wgrad of its modules keeps one tensor of each shape of a weight."""

WEIGH_EARLY = ("23e00ed", "Bridge")
"""Megatron-Core gives the router's weights to the activation between an expert's products."""


def any_of(names: Sequence[str], said: str) -> bool:
    return any(name in said for name in names)

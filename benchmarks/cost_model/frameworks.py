"""What the frameworks of published runs do, where a source says nothing else; by what their names contain."""

import re
from collections.abc import Sequence

BEFORE_SEQUENCE_PARALLELISM = ("Megatron-LM 2021", "Megatron-LM v1", "Megatron-DeepSpeed", "Megatron-LM / DeepSpeed")

BEFORE_FUSED_ATTENTION = (*BEFORE_SEQUENCE_PARALLELISM, "Megatron-LM 2022")
"""They have no distributed optimizer either, and sum gradients after the last backward."""

HALF_GRADIENTS = (*BEFORE_FUSED_ATTENTION, "DeepSpeed", "Composer", "NeMo", "Bridge")
"""They sum gradients in 16 bits: fp16 without an option for more, and the recipes of NeMo and Composer."""

_PLAIN = (
    *("composer", "fsdp", "fms", "foundation-model-stack", "hugging", "transformers", "accelerate", "trl", "lightning"),
    *("litgpt", "fairscale", "metaseq", "pytorch", "titan", "deepspeed", "llm-foundry", "olmo", "axolotl", "colossal"),
)
"""Their models are plain modules of PyTorch: every operator is a kernel, attention alone is fused, unless compiled."""

_KERNELS = ("megatron", "nemo", "bridge", "transformer engine", "nanotron", "neox")
"""They have fused kernels of their own, whatever else their names contain."""

TRANSFORMER_ENGINE = ("TE ", "NeMo", "Bridge")
"""get_dummy_wgrad of its modules keeps one tensor of each shape of a weight."""

WEIGH_EARLY = ("23e00ed", "Bridge")
"""Megatron-Core gives the router's weights to the activation between an expert's products."""


def any_of(names: Sequence[str], said: str) -> bool:
    return any(name in said for name in names)


def is_eager(framework: str, notes: str, precision: str) -> bool:
    """Whether nothing is fused: plain modules, of which nobody says that they were compiled.

    torchtitan's products in 8 bits count as compiled: its documentation has them so (docs/float8.md).
    """
    said = f"{framework} {notes}".lower()
    if not any_of(_PLAIN, framework.lower()) or any_of(_KERNELS, framework.lower()):
        return False
    if re.search(r"(\bno|\bnot|without|w/o|un)[- ]?(torch\W)?compil|compil\w*\W{1,3}(off|false|none|no)\b|eager", said):
        return True
    return "compil" not in said and not ("titan" in said and precision == "fp8")

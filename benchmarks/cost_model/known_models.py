"""Dims of models that published tables call by name alone."""

import re
from collections.abc import Mapping

KNOWN: Mapping[str, Mapping[str, object]] = {
    # Touvron et al., "Llama 2", arXiv 2307.09288, table 1 and the released configurations
    "llama2-7b": {
        "layers": 32, "hidden": 4096, "heads": 32, "kv_heads": 32, "ffn": 11008, "vocab": 32000, "gated_ffn": True
    },
    "llama2-13b": {
        "layers": 40, "hidden": 5120, "heads": 40, "kv_heads": 40, "ffn": 13824, "vocab": 32000, "gated_ffn": True
    },
    "llama2-70b": {
        "layers": 80, "hidden": 8192, "heads": 64, "kv_heads": 8, "ffn": 28672, "vocab": 32000, "gated_ffn": True
    },
    # NVIDIA NeMo launcher, conf/training/nemotron/22b.yaml; they give the FLOPs a token that NeMo 24.07 counts
    "nemotron-22b": {
        "layers": 40, "hidden": 6144, "heads": 48, "kv_heads": 48, "ffn": 24576, "vocab": 256000, "gated_ffn": False
    },
    # Jiang et al., "Mixtral of Experts", arXiv 2401.04088, and the released configurations
    "mixtral-8x7b": {
        "layers": 32, "hidden": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128, "ffn": 14336, "vocab": 32000,
        "experts": 8, "top_k": 2, "expert_ffn": 14336, "gated_ffn": True
    },
    # "MoE Parallel Folding", arXiv 2504.14960, section 4: the next, with experts of an eighth, of which a token takes 8
    "mixtral-8x22b-g8t8": {
        "layers": 56, "hidden": 6144, "heads": 48, "kv_heads": 8, "head_dim": 128, "ffn": 16384, "vocab": 32000,
        "experts": 64, "top_k": 8, "expert_ffn": 2048, "gated_ffn": True
    },
    "mixtral-8x22b": {
        "layers": 56, "hidden": 6144, "heads": 48, "kv_heads": 8, "head_dim": 128, "ffn": 16384, "vocab": 32000,
        "experts": 8, "top_k": 2, "expert_ffn": 16384, "gated_ffn": True
    },
    # the same: Llama 3 70B, every feed-forward eight times
    "llama3-8x70b": {
        "layers": 80, "hidden": 8192, "heads": 64, "kv_heads": 8, "head_dim": 128, "ffn": 28672, "vocab": 128256,
        "experts": 8, "top_k": 2, "expert_ffn": 28672, "gated_ffn": True
    },
    # Yang et al., "Qwen2 Technical Report", arXiv 2407.10671, table 1 and the released configuration
    "qwen2-57b-a14b": {
        "layers": 28, "hidden": 3584, "heads": 28, "kv_heads": 4, "head_dim": 128, "ffn": 18944, "vocab": 151936,
        "experts": 64, "top_k": 8, "expert_ffn": 2560, "shared_expert_ffn": 20480, "gated_ffn": True
    },
}  # fmt: skip

VOCABULARIES = {
    "llama3": 128_256, "llama": 32_000, "mistral": 32_000, "mixtral": 32_000, "qwen": 151_936, "gemma": 256_000,
    "deepseekv2": 102_400, "deepseek": 129_280, "bloom": 250_880, "falcon": 65_024, "pythia": 50_432, "gptneox": 50_432,
    "mpt": 50_368, "opt": 50_272, "nemotron": 256_000,
}  # fmt: skip
"""Of families of models, by how their names begin, as their released configurations have them."""

GATED = ("llama", "mistral", "mixtral", "qwen", "gemma", "deepseek", "yi", "olmo", "kimi", "phi3")
"""Families whose feed-forwards have a gate."""


def known_dims(row: Mapping[str, object]) -> Mapping[str, object]:
    """Of a model whose name begins as a known one's."""
    name = plain(row)
    return next((dims for known, dims in KNOWN.items() if name.startswith(_letters(known))), {})


def plain(row: Mapping[str, object]) -> str:
    """A model's name without what people write differently in it."""
    return _letters(str(row.get("model", ""))).removeprefix("meta")


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())

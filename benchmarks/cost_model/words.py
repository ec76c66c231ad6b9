"""What rows of surveys say in words: precision, what is computed again, what replicas share out.

What a row leaves open, or says in words that are not known, is assumed, and `assumed` says so.
"""

import re
from dataclasses import dataclass

from frameworks import BEFORE_FUSED_ATTENTION, any_of

from moec.compiler.cost.practice import Recompute

UNSAID = ("", "none stated", "not stated", "unknown", "n/a")


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What is computed again, in how many layers: `layers` of a stage, each `every`-th, `share` of them all."""

    kind: Recompute
    layers: int = 0
    every: int = 1
    share: float = 1.0
    assumed: str = ""

    def of_stage(self, layers: int) -> int:
        """Of a stage of so many layers, in how many; 0: in all."""
        if self.layers:
            return self.layers if self.layers < layers else 0
        count = round(self.share * (layers // self.every))
        return count if count < layers else 0


@dataclass(frozen=True, slots=True)
class Sharded:
    """As ZeRO counts: 1 the optimizer's state, 2 gradients too, 3 weights too; over how many ranks, 0: over all."""

    zero: int
    shards: int = 0
    assumed: str = ""


_PRECISIONS = (
    (r"fp4|float4|e2m1|\b4[- ]?bit", "fp4"),
    (r"int8", "int8"),
    (r"fp8|float8|e4m3|e5m2|\b8[- ]?bit", "fp8"),
    (r"bf16|bfloat16|fp16|float16|half|amp|mixed|\b16[- ]?bit", "half"),
    (r"tf32|tensorfloat", "tf32"),
    (r"fp32|float32|single|\b32[- ]?bit", "fp32"),
)


def precision_of(said: str) -> tuple[str, str]:
    """fp4, fp8, half, tf32, fp32, or the words themselves; and what is assumed."""
    text = said.lower().strip()
    if text in UNSAID:
        return "half", "the precision is not stated: 16 bits are assumed"
    return next((name for pattern, name in _PRECISIONS if re.search(pattern, text)), text), ""


_MODULES = r"[\"']?(core_attn|core attn|core attention|core_attention)"
_ORDINALS = {"other": 2, "second": 2, "third": 3, "fourth": 4}


def recompute_of(said: str, framework: str) -> Recomputed:
    """Lists of modules without the core of attention are of few bytes, and count as none."""
    text = said.lower().strip()
    if text in (*UNSAID, "null"):
        return Recomputed("none", assumed="what is computed again is not stated: nothing is assumed")
    selective = "selective" in text or re.search(rf"{_MODULES}|\bsac\b", text)
    if re.search(r"\b(none|no|off|false|disabled)\b", text) and not re.search(r"\bfull\b", text):
        return Recomputed("none")
    if selective:
        return _selective(text, framework)
    if re.search(r"\bfull\b|\ball\b|\b(block|uniform)\b|layer|checkpoint|\b(true|yes|on)\b", text):
        return _of_layers(text)
    if "attention" in text:
        return Recomputed("attention")
    return Recomputed(
        "none", assumed=f'"{said}" is computed again, it says, which is not understood: nothing is assumed'
    )


def _selective(text: str, framework: str) -> Recomputed:
    """torchtitan's is of each operator, or of each n-th layer; Megatron's is of modules, by default of attention."""
    titan = "titan" in framework.lower()
    number = re.search(r"selective\W*(?:ac\W*)?(?:option\W*)?(\d+)\b", text)
    if number or "every" in text:
        return _of_layers(f"every {number[1]}" if number else text)
    if re.search(rf"{_MODULES}", text):
        return Recomputed("attention")
    if titan or re.search(r"\bops?\b|op[- _]level|operator|\bsac\b", text):
        return Recomputed("operators")
    if "[" in text:
        modules = text[text.index("[") :]
        heavy = re.search(r"mlp|moe\b|expert", modules)
        return Recomputed("none", assumed=f"what {modules} computes again is not timed" if heavy else "")
    if "config" in text:
        return Recomputed("none", assumed=f'"{text}" is computed again, it says: nothing is assumed')
    return Recomputed("attention")


def _of_layers(text: str) -> Recomputed:
    """Whole layers: all, so many of a stage, or of all, each n-th; uniform n keeps the input of each n-th, but computes
    all again."""
    every = re.search(r"every (?:(\d+)|(other|second|third|fourth))|\b1 (?:in|of|out of) (\d+)\b", text)
    if every:
        return Recomputed("full", every=int(every[1] or every[3] or _ORDINALS[every[2]]))
    uniform = re.search(r"uniform\W*(\d+)", text)
    if uniform:
        kept = f"inputs of all layers are taken to be kept, not of each {uniform[1]}." if int(uniform[1]) > 1 else ""
        return Recomputed("full", assumed=kept)
    part = re.search(r"(\d+) ?(?:of|/|out of) ?(\d+) layers", text)
    if part:
        return Recomputed("full", share=int(part[1]) / int(part[2])) if int(part[1]) else Recomputed("none")
    some = re.search(r"(?:block|layers)\W*(\d+)|(\d+)[- ]layers?", text)
    if some:
        count = int(some[1] or some[2])
        return Recomputed("full", layers=count) if count else Recomputed("none")
    return Recomputed("full")


_STAGES = (
    (r"zero[ -]?2|stage[ -]?2|shard_grad_op", 2),
    (r"zero[ -]?3|stage[ -]?3|full[_ -]?shard|fsdp|hsdp|hybrid[_ -]?shard", 3),
    (r"zero[ -]?1|stage[ -]?1|distributed[_ -]?optimizer|\bos\b|\b(true|yes)\b", 1),
    (r"\b(none|no|ddp|no_shard|false|off)\b|zero[ -]?0", 0),
)
_PER_NODE = 8


def sharded_of(said: str, framework: str) -> Sharded:
    """From the row's own field, or else from what the framework is called, or else as the framework does."""
    text = said.lower().strip()
    if re.fullmatch(r"[0-3](\.0)?", text):
        return Sharded(int(text[0]))
    for words in (text, framework.lower()) if text in UNSAID else (text,):
        stage = _stage(words)
        if stage is not None:
            return Sharded(stage, _shards(words))
    usual = 3 if "titan" in framework.lower() else int(not any_of((*BEFORE_FUSED_ATTENTION, "DeepSpeed"), framework))
    if text in UNSAID:
        return Sharded(usual)
    return Sharded(usual, assumed=f'"{said}" of zero is not understood: {usual} is assumed')


def _stage(words: str) -> int | None:
    return next((stage for pattern, stage in _STAGES if re.search(pattern, words)), None)


def _shards(words: str) -> int:
    """Hybrid ones share out over a node where they do not say over how many."""
    count = re.search(r"shards?\W*(?:size|degree)?\W*(\d+)", words)
    if count:
        return int(count[1])
    return _PER_NODE if re.search(r"hsdp|hybrid", words) else 0

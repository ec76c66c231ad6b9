"""Draws modules of a user's own, as Python text, with a plan that imports them: any chain of odd operators, any mesh.

Every step keeps x [B, R, W], samples by rows by width, so that any step can follow any other.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy], object]

STEPS = (
    "x = x + self.down{n}(F.gelu(self.up{n}(x)))",
    "x = x + self.down{n}(F.silu(self.gate{n}(x)) * self.up{n}(x))",
    "x = x + self.down{n}(self.up{n}(x).relu().square())",
    "x = x + self.mix{n}(x).tanh()",
    "x = self.norm{n}(x)",
    "x = F.rms_norm(x, (x.shape[-1],), self.scale{n})",
    "x = x * self.scale{n} + self.shift{n}",
    "x = F.silu(x)",
    "x = torch.where(x > 0, x, 0.1 * x)",
    "x = x.sigmoid() * x",
    "x = x.softmax(-1) * x",
    "x = x + x.softmax(1)",
    "x = x - x.mean(1, keepdim=True)",
    "x = x / (1 + x.square().sum(-1, keepdim=True).sqrt())",
    "x = x + x.amax(-1, keepdim=True)",
    "x = x + x.cumsum(1) * 0.1",
    "x = torch.cat((x[..., 1:], x[..., :1]), -1)",
    "x = F.pad(x, (0, 0, 1, 0))[:, :-1]",
    "x = x.flip(1)",
    "x = torch.stack(x.chunk(2, -1), -1).flatten(-2)",
    "x = x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)",
    "x = x + torch.einsum('brw,bsw->brs', x, x).softmax(-1) @ x",
    "x = x + F.scaled_dot_product_attention(x, self.mix{n}(x), x)",
    "x = x + self.table{n}(x.argmax(-1) % 3)",
    "x = x + self.mix{n}(x.transpose(0, 1)).transpose(0, 1)",
    "x = x + self.mix{n}(x.flatten(0, 1)).view_as(x)",
    "x = x.clamp(-2.0, 2.0)",
    "a, b = x.split(x.shape[-1] // 2, -1)\n        x = torch.cat((a * b.tanh(), b), -1)",
)
"""What a layer may do, with n the number of the step."""

MADE = {
    "up": "nn.Linear(width, inner)",
    "gate": "nn.Linear(width, inner, bias=False)",
    "down": "nn.Linear(inner, width)",
    "mix": "nn.Linear(width, width, bias=False)",
    "norm": "nn.LayerNorm(width)",
    "scale": "nn.Parameter(torch.rand(width) + 0.5)",
    "shift": "nn.Parameter(torch.randn(width))",
    "table": "nn.Embedding(3, width)",
}

LOSSES = (
    "F.cross_entropy(scores, label)",
    "(F.cross_entropy(scores, label, reduction='sum'), torch.tensor(label.numel()))",
    "(F.cross_entropy(scores, label, reduction='sum', ignore_index=1), (label != 1).sum())",
)

MODULE = '''"""Drawn."""

import torch
import torch.nn.functional as F
from torch import nn

{kinds}

class Drawn(nn.Module):
    def __init__(self, width: int, inner: int, layers: int, rows: int = 4):
        super().__init__()
        self.stem = nn.Linear(width, width)
        self.layers = nn.ModuleList({choice} for n in range(layers))
        self.head = nn.Linear(width, 5)

    def forward(self, x, label):
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x)
        scores = self.head(x.mean(1))
        return {loss}
'''

KIND = """
class Kind{k}(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
{made}

    def forward(self, x):
        {steps}
        return x
"""

PLAN = """model drawn = python "{module}:Drawn" {{
  width = 12   inner = 24   layers = {layers}   rows = 12
  small {{ width = 24   inner = 12   rows = {rows} }}
  inputs {{ x = float[batch, rows, width]   label = int[batch] < 5 }}
  {weights}
}}
mesh {{ {mesh} }}
shard {{ {shard} }}
schedule {kind} {{ batch = {batch}   accumulate = {accumulate} }}
train {{ lr = 1e-2   clip = {clip}   weight_decay = 0.1 }}
"""

PATTERNS = {
    "up": ('"*.up*.weight" [inner, _]', '"*.up*.bias" [inner]'),
    "gate": ('"*.gate*.weight" [inner, _]',),
    "down": ('"*.down*.weight" [_, inner]',),
}
"""By what has weights of these names."""


@dataclass(frozen=True)
class Imported:
    """The text of a plan, and that of the module it imports as `module`."""

    plan: str
    source: str

    def __str__(self) -> str:
        return f"{self.plan}\n{self.source}"


@st.composite
def modules(draw: Draw, module: str) -> Imported:
    """A module of one or two kinds of layers under that name, on a mesh of at most 24 ranks."""
    kinds = [_kind(draw, k) for k in range(draw(st.integers(1, 2)))]
    stages = draw(st.sampled_from([1, 1, 2, 3]))
    layers = draw(st.integers(max(2, stages), stages + 2))
    source = MODULE.format(
        kinds="\n".join(KIND.format(k=k, made=made, steps=steps) for k, (made, steps) in enumerate(kinds)),
        choice=f"(Kind0, Kind{len(kinds) - 1})[n % 2](width, inner)",
        loss=draw(st.sampled_from(LOSSES)),
    )
    sizes = draw(st.permutations([size for size in (2, 3, 4) if size != stages]))
    axes = list(zip(("dp", "tp"), sizes, strict=False))[: draw(st.integers(1, 2))]
    inner = any("self.up" in steps for _, steps in kinds)
    shard = _shard(draw, [name for name, _ in axes], inner)
    mesh = [*([("pp", stages)] if stages > 1 else []), *axes]
    accumulate = draw(st.sampled_from([1, 2, stages + 1]))
    plan = PLAN.format(
        module=module,
        layers=layers,
        rows=draw(st.sampled_from([12, 24])),
        weights=f"weights {{ {'   '.join(_patterns(kinds))} }}" if "inner" in shard else "",
        mesh="   ".join(f"{name} = {size}" for name, size in draw(st.permutations(mesh))),
        shard="   ".join([*(["layers over pp"] if stages > 1 else []), *(f"{d} over {a}" for d, a in shard.items())]),
        kind=draw(st.sampled_from(["gpipe", "1f1b"])),
        batch=12 * accumulate,
        accumulate=accumulate,
        clip=draw(st.sampled_from(["none", "0.5"])),
    )
    return Imported(plan, source)


def _kind(draw: Draw, k: int) -> tuple[str, str]:
    """What a kind of layer makes, and its steps."""
    steps = draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=5))
    lines = [step.format(n=n) for n, step in enumerate(steps)]
    made = [
        f"        self.{name}{n} = {text}"
        for n, line in enumerate(lines)
        for name, text in MADE.items()
        if f"self.{name}{n}" in line
    ]
    return "\n".join(made) or "        pass", "\n        ".join(lines)


def _shard(draw: Draw, axes: list[str], inner: bool) -> dict[str, str]:
    """Axes for some dims; every axis for one, so that none splits nothing."""
    shard: dict[str, str] = {}
    for axis in axes:
        dims = [dim for dim in ("batch", "rows", *(["inner"] if inner else [])) if dim not in shard]
        shard[draw(st.sampled_from(dims))] = axis
    return shard


def _patterns(kinds: list[tuple[str, str]]) -> list[str]:
    made = " ".join(made for made, _ in kinds)
    return [pattern for name, patterns in PATTERNS.items() if f"self.{name}" in made for pattern in patterns]

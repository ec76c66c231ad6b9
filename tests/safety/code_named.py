"""A model whose every name is code that would make a file called `pwned`, for each way to get out of a text."""

import torch
from torch import Tensor, nn

MAKE = "open('pwned', 'w')"
NAMES = (
    f"x; {MAKE}",
    f"x\n{MAKE}\n",
    f"x\r{MAKE}\r",
    f"x)\n{MAKE}  # (",
    f'x"; {MAKE}  # "',
    f"x'; {MAKE}  # '",
    f'x"""\n{MAKE}\n"""',
    f"x'''\n{MAKE}\n'''",
    f'", {MAKE}, "',
    f'\\", {MAKE}, "',
    f"{{{MAKE}}}",
    f"{{{{ {MAKE} }}}}",
    f"{{% if {MAKE} %}}",
    f"# {MAKE}",
    f"\u2028{MAKE}",
    f"\x0c{MAKE}",
)
"""Without a point, which torch takes for a path."""


class Layer(nn.Module):
    """[B, W] -> the same: every name is that of a weight, of a buffer, and of a module."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in NAMES:
            self.register_parameter(name, nn.Parameter(torch.randn(width)))
            self.register_buffer(f"b{name}", torch.ones(width))
            self.add_module(f"m{name}", nn.LayerNorm(width))

    def forward(self, x: Tensor) -> Tensor:
        for name in NAMES:
            x = self.get_submodule(f"m{name}")(x * self.get_parameter(name) + self.get_buffer(f"b{name}"))
        return x


class Code(nn.Module):
    """Every name is that of a list of layers, and two are those of kinds of layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        kinds = [type(name, (Layer,), {"__module__": name}) for name in NAMES[:2]]
        self.add_module(f"l{NAMES[0]}", nn.ModuleList(kind(width) for kind in kinds))
        for name in NAMES:
            self.add_module(name, nn.ModuleList([nn.Linear(width, width)]))

    def forward(self, x: Tensor) -> Tensor:
        for layers in self.children():
            for layer in layers.children():
                x = layer(x)
        return x.square().mean()

"""A module whose parameters and submodules are called what no text can hold unescaped."""

import torch
from torch import Tensor, nn

NAMES = (
    "class",
    'a"b',
    "{{7*7}}",
    "{% x %}",
    "größe",
    "back\\slash",
    'x"""y',
    "line\nbreak",
    "stage",
    'it\'s "x"',
    "#",
)


class Layer(nn.Module):
    child = "inner"

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in NAMES:
            self.register_parameter(name, nn.Parameter(torch.randn(width)))
        self.add_module(self.child, nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        for name in NAMES:
            x = x + torch.tanh(x * self.get_parameter(name))
        return x + self.get_submodule(self.child)(x)


class Hostile(nn.Module):
    """The loss is a mean over samples."""

    layer = Layer

    def __init__(self, width: int, layers: int, word: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self.layer(width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x.square().mean()


class KeywordLayer(Layer):
    child = "def"


class Keyword(Hostile):
    layer = KeywordLayer

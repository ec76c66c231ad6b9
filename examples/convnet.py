"""A small residual convolutional network for convnet.plan: not a transformer, and nothing in it knows of a mesh.

Legend: B images, W width, C channels inside a block.
"""

from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 10


class ConvNet(nn.Module):
    """Images [B, 3, 16, 16] and their classes [B] -> the mean cross-entropy."""

    def __init__(self, width: int, channels: int, blocks: int):
        super().__init__()
        self.stem = nn.Conv2d(3, width, kernel_size=3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(width, channels) for _ in range(blocks))
        self.skip = nn.Conv2d(width, width, kernel_size=1)
        self.norm = nn.GroupNorm(1, width)
        self.classifier = nn.Linear(width, CLASSES)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        early = F.gelu(self.stem(image))  # read again below, past all blocks
        x = early
        for block in self.blocks:
            x = block(x)
        x = self.norm(x + self.skip(early))
        return F.cross_entropy(self.classifier(x.mean(dim=(2, 3))), label)


class Block(nn.Module):
    """[B, W, 8, 8] -> the same, through C channels."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.up = nn.Conv2d(width, channels, kernel_size=3, padding=1)
        self.down = nn.Conv2d(channels, width, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Gratings:
    """Stripes under noise; the class is their direction. An image depends on its number alone."""

    def __len__(self) -> int:
        return 1_000_000

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(index)
        label = torch.randint(CLASSES, (), generator=generator)
        phase, wavelength = 2 * pi * torch.rand((), generator=generator), 4 + 3 * torch.rand((), generator=generator)
        angle = pi * label / CLASSES
        row, column = torch.arange(16.0)[:, None], torch.arange(16.0)
        wave = torch.sin(2 * pi / wavelength * (row * angle.sin() + column * angle.cos()) + phase)
        return {"image": wave + 0.5 * torch.randn(3, 16, 16, generator=generator), "label": label}


gratings = Gratings()

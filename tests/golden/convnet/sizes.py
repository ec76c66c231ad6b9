"""Sizes of convnet: of the whole, and of one rank where a dim is split."""

import torch

DTYPE = torch.float32  # of weights and activations
FLOAT = torch.float32  # where more than half is needed

WIDTH = 32
CHANNELS = 64
LOCAL_BATCH = 2  # of 6, split over x

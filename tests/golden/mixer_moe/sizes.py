"""Sizes of mixer_moe: of the whole, and of one rank where a dim is split."""

import torch

DTYPE = torch.float32  # of weights and activations
FLOAT = torch.float32  # where more than half is needed

BATCH = 8
VOCAB = 32
SEQ = 16
WIDTH = 64
MIXED = 48
EXPERTS = 8
FFN = 96
CAPACITY = 5
LOCAL_BATCH = 4  # of 8, split over ep
LOCAL_EXPERTS = 4  # of 8, split over ep

"""Sizes of tiny_moe: of the whole, and of one rank where a dim is split."""

import torch

DTYPE = torch.float32  # of weights and activations
FLOAT = torch.float32  # where more than half is needed

BATCH = 4
EXPERTS = 4
HEADS = 4
SEQ = 64
HEAD_DIM = 16
HIDDEN = 64
EXPERT_FFN = 128
VOCAB = 256
CAPACITY = 20
LOCAL_BATCH = 2  # of 4, split over ep
LOCAL_EXPERTS = 2  # of 4, split over ep
LOCAL_HEADS = 2  # of 4, split over tp
LOCAL_VOCAB = 128  # of 256, split over tp

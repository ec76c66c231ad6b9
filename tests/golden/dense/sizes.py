"""Sizes of dense: of the whole, and of one rank where a dim is split."""

import torch

DTYPE = torch.bfloat16  # of weights and activations
FLOAT = torch.float32  # where more than half is needed

HEADS = 32
KV_HEADS = 8
SEQ = 2048
HEAD_DIM = 64
HIDDEN = 2048
FFN = 5632
VOCAB = 32003
LOCAL_BATCH = 2  # of 8, split over dp
LOCAL_HEADS = 8  # of 32, split over tp
LOCAL_KV_HEADS = 2  # of 8, split over tp
LOCAL_VOCAB = 8001  # of 32003, split over tp

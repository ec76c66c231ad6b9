"""Sizes of 30b_moe: of the whole, and of one rank where a dim is split."""

import torch

DTYPE = torch.bfloat16  # of weights and activations
FLOAT = torch.float32  # where more than half is needed

EXPERTS = 64
HEADS = 16
SEQ = 4096
HEAD_DIM = 128
HIDDEN = 2048
EXPERT_FFN = 7168
VOCAB = 32000
CAPACITY = 71
BATCH_PER_DP = 16  # of 32, split over dp
LOCAL_BATCH = 1  # of 32, split over dp and ep
LOCAL_EXPERTS = 4  # of 64, split over ep
LOCAL_HEADS = 4  # of 16, split over tp
LOCAL_VOCAB = 8000  # of 32000, split over tp

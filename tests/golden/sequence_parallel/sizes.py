"""Sizes of sequence_parallel: of the whole, and of one rank where a dim is split."""

import torch

DTYPE = torch.float32  # of weights and activations
FLOAT = torch.float32  # where more than half is needed

EXPERTS = 8
HEADS = 8
SEQ = 1024
HEAD_DIM = 64
HIDDEN = 512
EXPERT_FFN = 1408
VOCAB = 8192
BATCH_PER_DP0 = 4  # of 8, split over dp0
BATCH_PER_DP_TP = 1  # of 8, split over dp0 and dp1 and tp
LOCAL_BATCH = 2  # of 8, split over dp0 and dp1
LOCAL_EXPERTS = 2  # of 8, split over dp1 and tp
LOCAL_HEADS = 4  # of 8, split over tp
LOCAL_SEQ = 512  # of 1024, split over tp
LOCAL_VOCAB = 4096  # of 8192, split over tp

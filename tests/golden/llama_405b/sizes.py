"""Sizes of llama_405b: of the whole, and of one rank where a dim is split."""

import torch

DTYPE = torch.bfloat16  # of weights and activations
FLOAT = torch.float32  # where more than half is needed

HEADS = 128
KV_HEADS = 8
SEQ = 8192
HEAD_DIM = 128
HIDDEN = 16384
FFN = 53248
VOCAB = 128256
LOCAL_BATCH = 1  # of 2, split over dp
LOCAL_HEADS = 16  # of 128, split over tp
LOCAL_KV_HEADS = 1  # of 8, split over tp
LOCAL_VOCAB = 16032  # of 128256, split over tp

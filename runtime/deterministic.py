"""The same plan, seed, mesh and machine give the same bits: by the operators that torch has for it."""

import os

import torch


def make_deterministic() -> None:
    """Before anything is computed. An operator of a GPU that cannot do it raises RuntimeError, and says which it is.

    https://docs.pytorch.org/docs/stable/notes/randomness.html. Sums over ranks need nothing: on CPUs they run in group
    order, and nccl's order is that of its ring or tree.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms, which imports the inductor
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False

"""Key and value heads that several query heads share, where the query heads go over an axis and they do not."""

import torch
from torch import Tensor

from moec.runtime.communicator import current


def repeat_for(kv: Tensor, axes: str, heads: int, groups: int) -> Tensor:
    """For each of this rank's query heads the key or value head that it reads: [B, KV, T, D] -> [B, heads, T, D].

    The rank's query heads start at coordinate * heads of the whole; `groups` of the whole share one head of kv.
    Gradients of those that share add up in kv's, a summand: other ranks share it too.
    """
    start = current().coordinate(axes) * heads
    index = torch.arange(start, start + heads, device=kv.device) // groups
    return kv.index_select(1, index)

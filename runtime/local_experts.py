"""Rows of tokens that every rank of a group has, whose experts are split over the group: the part that is this rank's.

W ranks own E experts, E / W each, in order; `counts` int64[E] are the rows of each expert, in whose order the rows are.
The functions are each other's transpose, and run inside a region: no rank talks, and autograd differentiates them.
"""

import torch.nn.functional as F
from torch import Tensor

from moec.runtime.communicator import current


def own_rows(rows: Tensor, counts: Tensor, axes: str) -> tuple[Tensor, Tensor]:
    """Rows [sum(counts), ...] -> those of this rank's experts, and counts int64[E / W] of these.  R -> S(experts)."""
    before, _, mine = _spans(counts, axes)
    return rows.narrow(0, before, int(mine.sum())), mine


def place_rows(rows: Tensor, counts: Tensor, axes: str) -> Tensor:
    """Rows of this rank's experts -> [sum(counts), ...], at their place in zeros.  S(experts) -> P."""
    before, after, _ = _spans(counts, axes)
    return F.pad(rows, (0, 0) * (rows.dim() - 1) + (before, after))


def _spans(counts: Tensor, axes: str) -> tuple[int, int, Tensor]:
    """Rows before and after those of this rank's experts, and the counts of these."""
    ranks = current()
    by_rank = counts.unflatten(0, (ranks.size(axes), -1))
    at = ranks.coordinate(axes)
    totals = by_rank.sum(1).tolist()
    return sum(totals[:at]), sum(totals[at + 1 :]), by_rank[at]

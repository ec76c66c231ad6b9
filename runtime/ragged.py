"""Rows sorted by expert that move between ranks, when how many go where is data.

W ranks of a group hold tokens; `counts` int64[E] are the rows that this rank has for each expert. Whatever says how
many rows move is known before they do, and the backward uses the same.

Experts split over the group, E / W each, in order: rows go to the rank of their expert and come back. `arrivals`
int64[W, E / W] are the rows that come from each rank for each expert that lives here. `send_rows` and `return_rows` are
each other's transpose.

Experts on every rank of the group, each a part of them: rows go to all. `everyone` int64[W, E] are all ranks' counts.
`gather_rows` and `scatter_rows` are each other's transpose.

No rows at all, anywhere, is an ordinary case.
"""

import torch
from torch import Tensor

from moec.runtime.collectives import activation
from moec.runtime.communicator import Splits, current


def exchange_counts(counts: Tensor, axes: str, name: str = "") -> Tensor:
    """int64[E] -> int64[W, E / W]."""
    ranks = current()
    size = ranks.size(axes)
    if size > 1:
        counts = ranks.all_to_all(counts, axes, None, name, later=False).wait()
    return counts.unflatten(0, (size, counts.shape[0] // size))


def gather_counts(counts: Tensor, axes: str, name: str = "") -> Tensor:
    """int64[...] -> int64[W, ...]: everyone's counts, in group order."""
    ranks = current()
    counts = counts.unsqueeze(0)
    return counts if ranks.size(axes) == 1 else ranks.all_gather(counts, axes, name, later=False).wait()


def send_rows(rows: Tensor, counts: Tensor, arrivals: Tensor, axes: str, name: str = "") -> Tensor:
    """Rows [n, ...] sorted by expert -> the rows of this rank's experts, by expert, then by the rank they come from."""
    ranks = current()
    size = ranks.size(axes)
    if size == 1:
        return activation(rows)
    there, here = _row_counts(counts, arrivals, size)
    arrived = ranks.all_to_all(rows.detach(), axes, Splits(there, here), name, later=False).wait()
    if arrivals.shape[1] > 1:
        arrived = arrived.index_select(0, _by_expert(arrivals, sum(here)))
    return arrived.requires_grad_() if rows.requires_grad else arrived


def return_rows(rows: Tensor, counts: Tensor, arrivals: Tensor, axes: str, name: str = "") -> Tensor:
    """The inverse of `send_rows`: every row goes back to where it came from."""
    ranks = current()
    size = ranks.size(axes)
    if size == 1:
        return activation(rows)
    there, here = _row_counts(counts, arrivals, size)
    leaving = rows.detach()
    if arrivals.shape[1] > 1:
        leaving = torch.empty_like(leaving).index_copy_(0, _by_expert(arrivals, sum(here)), leaving)
    returned = ranks.all_to_all(leaving, axes, Splits(here, there), name, later=False).wait()
    return returned.requires_grad_() if rows.requires_grad else returned


def gather_rows(rows: Tensor, everyone: Tensor, axes: str, name: str = "") -> Tensor:
    """Rows [n, ...] sorted by expert -> the rows of all members, by expert, then by the rank they come from.

    S(tokens) -> R.
    """
    ranks = current()
    size = ranks.size(axes)
    if size == 1:
        return activation(rows)
    here = _rows_of_each(everyone)
    there = (here[ranks.coordinate(axes)],) * size
    copies = rows.detach().repeat(size, *[1] * (rows.dim() - 1))
    arrived = ranks.all_to_all(copies, axes, Splits(there, here), name, later=False).wait()
    arrived = arrived.index_select(0, _by_expert(everyone, sum(here)))
    return arrived.requires_grad_() if rows.requires_grad else arrived


def scatter_rows(rows: Tensor, everyone: Tensor, axes: str, name: str = "") -> Tensor:
    """Rows of all members, as `gather_rows` orders them -> the sum over the members of those that are this rank's.

    P -> S(tokens).
    """
    ranks = current()
    size = ranks.size(axes)
    if size == 1:
        return activation(rows)
    there = _rows_of_each(everyone)
    mine = there[ranks.coordinate(axes)]
    leaving = rows.detach()
    leaving = torch.empty_like(leaving).index_copy_(0, _by_expert(everyone, sum(there)), leaving)
    parts = ranks.all_to_all(leaving, axes, Splits(there, (mine,) * size), name, later=False).wait()
    total = parts.unflatten(0, (size, mine)).sum(0)
    return total.requires_grad_() if rows.requires_grad else total


def _rows_of_each(everyone: Tensor) -> tuple[int, ...]:
    """Rows that each member holds, on the host."""
    return tuple(everyone.sum(1).tolist())


def _row_counts(counts: Tensor, arrivals: Tensor, size: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows to and from each rank; one copy to the host for both."""
    there = counts.unflatten(0, (size, counts.shape[0] // size)).sum(1)
    both = torch.cat((there, arrivals.sum(1))).tolist()
    return tuple(both[:size]), tuple(both[size:])


def _by_expert(arrivals: Tensor, rows: int) -> Tensor:
    """Where, in rows ordered by source and then expert, the rows ordered by expert and then source are."""
    lengths = arrivals.flatten()
    starts = (lengths.cumsum(0) - lengths).view_as(arrivals).t().flatten()
    lengths = arrivals.t().flatten()
    shift = starts - (lengths.cumsum(0) - lengths)
    place = torch.arange(rows, device=arrivals.device)
    return place + shift.repeat_interleave(lengths, output_size=rows)

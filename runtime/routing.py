"""Mixture-of-experts routing as plain differentiable torch functions: route, dispatch, collect, grouped_linear.

A model calls these four. Run as they are they compute the unsharded answer; under torch.export each becomes one node,
which the compiler places on the mesh and emits either as it is (a routing group lies within one shard: buffers of a
static size) or as the ragged functions below (the group spans shards, or there is no capacity: sizes are data).

Legend: B sequences, S positions, E experts, K choices per token (top_k), H hidden, C capacity (rows an expert takes of
one routing group), G groups (B for per-sequence groups, else 1), N rows that exist.

Everything that depends on a set of tokens is defined on the routing group, never on what a rank happens to hold.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from fractions import Fraction
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from moec.runtime.collectives import coordinate, group_size
from moec.runtime.grouped import batched_linear

PER_SEQUENCE, PER_MICROBATCH = "per_sequence", "per_microbatch"


class Watcher(Protocol):
    """Is told what is decided, a layer at a time: which experts, and then which choices they have room for."""

    def chosen(self, expert: Tensor) -> None:
        """expert [B, S, K] of this rank's tokens."""
        ...

    def kept(self, kept: Tensor) -> None:
        """bool [B, S, K], of those that were chosen last. Not called where there is no capacity."""
        ...


_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def watch(watcher: Watcher | None) -> None:
    """From here on, in this context (a process, or the greenlet of one rank), tell it of every decision."""
    _watcher.set(watcher)


def watching() -> Watcher | None:
    """Who is told at present."""
    return _watcher.get()


def capacity_of(tokens: int, top_k: int, experts: int, factor: Fraction, minimum: int = 0) -> int:
    """Rows an expert takes of a routing group of `tokens` positions: ceil(K·T·factor / E), in exact arithmetic."""
    return max(minimum, -(-(top_k * tokens * factor.numerator) // (experts * factor.denominator)))


def route(
    logits: Tensor, top_k: int, capacity: int | None = None, group: str = PER_SEQUENCE, softmax_first: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose experts for every token. logits [B, S, E] -> prob [B, S, K], expert [B, S, K], place [B, S, K].

    Ties go to the lower expert. `place` counts earlier choices of the same expert in the routing group, token-major;
    a choice with place >= capacity is dropped: its prob is 0 and its place is the capacity. Without a capacity nothing
    is dropped.
    """
    if torch.compiler.is_exporting():
        return torch.ops.moec.route(logits, top_k, capacity, group, softmax_first)
    prob, expert = choose(logits, top_k, softmax_first)
    experts = logits.shape[-1]
    before = None if group == PER_SEQUENCE else earlier_rows(tally(expert, experts)[None], group, 0, 1)
    return _numbered(prob, expert, experts, before, _room(expert, capacity, group))


def dispatch(
    x: Tensor, expert: Tensor, place: Tensor, experts: int, capacity: int | None = None, group: str = PER_SEQUENCE
) -> Tensor:
    """Give every expert its rows. x [B, S, H], expert and place [B, S, K] -> rows [E, G, C, H], unused ones zero."""
    if torch.compiler.is_exporting():
        return torch.ops.moec.dispatch(x, expert, place, experts, capacity, group)
    room = _room(expert, capacity, group)
    return fill_slots(x, slots(expert, place, experts, room, group), experts, room, group)


def grouped_linear(rows: Tensor, weight: Tensor) -> Tensor:
    """One matrix per expert. rows [E, G, C, K], weight [E, N, K] -> [E, G, C, N]."""
    if torch.compiler.is_exporting():
        return torch.ops.moec.grouped_linear(rows, weight)
    return batched_linear(rows, weight)


def collect(rows: Tensor, prob: Tensor, expert: Tensor, place: Tensor, group: str = PER_SEQUENCE) -> Tensor:
    """Bring the rows home, weighted. rows [E, G, C, H], prob, expert, place [B, S, K] -> [B, S, H].

    The choices of a token are added in the order of k; a token that no expert took gets zero.
    """
    if torch.compiler.is_exporting():
        return torch.ops.moec.collect(rows, prob, expert, place, group)
    return read_slots(rows, prob, slots(expert, place, rows.shape[0], rows.shape[2], group))


# ---- The parts of `dispatch` and `collect` where a group lies within one shard: both go by the same slots.


def slots(expert: Tensor, place: Tensor, experts: int, capacity: int, group: str) -> Tensor:
    """Where the row of each choice is in [E, G, C], flat, or one past the end if it was dropped: [B, S, K]."""
    groups = len(expert) if group == PER_SEQUENCE else 1
    slot = expert * (groups * capacity) + place
    if groups > 1:
        slot += torch.arange(0, groups * capacity, capacity, device=expert.device)[:, None, None]
    return slot.masked_fill_(place >= capacity, experts * groups * capacity)


def fill_slots(x: Tensor, slot: Tensor, experts: int, capacity: int, group: str) -> Tensor:
    """x [B, S, H], slot [B, S, K] -> rows [E, G, C, H], unused ones zero."""
    groups = len(x) if group == PER_SEQUENCE else 1
    rows = x.new_zeros(experts * groups * capacity + 1, x.shape[-1])
    for choice in slot.flatten(0, 1).unbind(-1):
        rows = rows.index_add_(0, choice, x.flatten(0, 1))  # no two share a row but the last
    return rows[:-1].view(experts, groups, capacity, x.shape[-1])


def read_slots(rows: Tensor, prob: Tensor, slot: Tensor) -> Tensor:
    """rows [E, G, C, H], prob, slot [B, S, K] -> [B, S, H], choices added in the order of k."""
    table = rows.flatten(0, 2)
    return _fetched(table, prob, slot.clamp(max=len(table) - 1))


# ---- The parts of `route`, which a group that spans shards needs one by one.


def choose(logits: Tensor, top_k: int, softmax_first: bool = True) -> tuple[Tensor, Tensor]:
    """Best experts of every token, stably: logits [B, S, E] -> prob [B, S, K], expert [B, S, K]."""
    if softmax_first and top_k == 1:
        prob, expert = logits.softmax(-1).max(dim=-1, keepdim=True)  # of equal ones the first, as a stable sort has it
    else:
        scores = logits.softmax(-1) if softmax_first else logits
        scores, order = scores.sort(dim=-1, descending=True, stable=True)
        prob, expert = scores[..., :top_k], order[..., :top_k]
        prob = prob if softmax_first else prob.softmax(-1)
    watcher = _watcher.get()
    if watcher is not None:
        watcher.chosen(expert)
    return prob, expert


def tally(expert: Tensor, experts: int) -> Tensor:
    """How often each sequence chose each expert: expert [B, S, K] -> counts [B, E]."""
    flat = expert.flatten(1)
    return flat.new_zeros(len(flat), experts).scatter_add_(1, flat, torch.ones_like(flat))


def earlier_rows(counts: Tensor, group: str, chunk: int, chunks: int) -> Tensor:
    """Rows that each expert gets before the first position of each of my sequences.

    counts [W, B, E] holds `tally` of all shards, batch-major and then by chunk of the sequence (of `chunks`, mine is
    the `chunk`-th) -> [B_total, E], for all sequences of the micro-batch.
    """
    by_sequence = counts.unflatten(0, (-1, chunks)).transpose(1, 2).flatten(0, 1)  # [B_total, chunks, E]
    within = by_sequence[:, :chunk].sum(1)
    if group == PER_SEQUENCE:
        return within
    whole = by_sequence.sum(1)
    return whole.cumsum(0) - whole + within


def rows_before(counts: Tensor, group: str, samples: str, positions: str) -> Tensor:
    """`earlier_rows` for my sequences only: counts [W, B, E] of the ranks over samples, then positions -> [B, E].

    samples and positions are the groups over which sequences and their chunks lie, "" where only I have any.
    """
    chunk, chunks = (coordinate(positions), group_size(positions)) if positions else (0, 1)
    start = coordinate(samples) * counts.shape[1] if samples else 0
    return earlier_rows(counts, group, chunk, chunks).narrow(0, start, counts.shape[1])


def drop(prob: Tensor, expert: Tensor, before: Tensor, capacity: int) -> tuple[Tensor, Tensor, Tensor]:
    """Number the choices of each expert and drop those beyond capacity.

    prob, expert [B, S, K], before [B, E] -> prob, expert, place [B, S, K].
    """
    return _numbered(prob, expert, before.shape[-1], before, capacity)


def _numbered(
    prob: Tensor, expert: Tensor, experts: int, before: Tensor | None, capacity: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    flat = expert.flatten(1)
    running = (flat.unsqueeze(-1) == torch.arange(experts, device=flat.device)).cumsum(1)
    place = running.gather(2, flat.unsqueeze(-1)).squeeze(-1) - 1
    if before is not None:
        place += before.gather(1, flat)
    place = place.view_as(expert)
    if capacity is None:
        return prob, expert, place
    kept = place < capacity
    watcher = _watcher.get()
    if watcher is not None:
        watcher.kept(kept)
    return prob * kept, expert, place.clamp(max=capacity)


# ---- Rows whose number is data: the local side of a ragged dispatch. Sorted by expert, then by token, then by choice.


def sort_rows(x: Tensor, expert: Tensor, kept: Tensor | None, experts: int) -> tuple[Tensor, Tensor]:
    """My tokens' rows in the experts' order: x [B, S, H], expert [B, S, K] -> rows [N, H], counts [E]."""
    order, counts = _order(expert, kept, experts)
    return x.flatten(0, 1).index_select(0, order // expert.shape[-1]), counts


def grouped_linear_ragged(rows: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """One matrix per expert over its run of rows. rows [N, K], weight [E, O, K], counts [E] -> [N, O]."""
    runs = rows.split(counts.tolist())
    return torch.cat([F.linear(run, matrix) for run, matrix in zip(runs, weight.unbind(0), strict=True)])


def collect_rows(rows: Tensor, prob: Tensor, expert: Tensor, kept: Tensor | None, experts: int) -> Tensor:
    """The inverse of `sort_rows`, weighted: rows [N, H], prob [B, S, K] -> [B, S, H], choices added in order."""
    order, _ = _order(expert, kept, experts)
    place = torch.full((expert.numel(),), len(rows), device=rows.device).index_copy(
        0, order, torch.arange(len(order), device=rows.device)
    )
    table = torch.cat([rows, rows.new_zeros(1, rows.shape[-1])])
    return _fetched(table, prob, place.view_as(expert))


def _order(expert: Tensor, kept: Tensor | None, experts: int) -> tuple[Tensor, Tensor]:
    key = expert.flatten()
    if kept is not None:
        key = torch.where(kept.flatten(), key, experts)
    counts = torch.bincount(key, minlength=experts)[:experts]
    return key.argsort(stable=True)[: int(counts.sum())], counts


def _fetched(table: Tensor, prob: Tensor, slot: Tensor) -> Tensor:
    """The weighted sum of the rows of each token's choices: table [N, H], prob, slot [B, S, K] -> [B, S, H]."""
    prob = prob.to(table.dtype)
    home, *others = [
        table.index_select(0, choice.flatten()).view(*choice.shape[:-1], -1) * weight
        for weight, choice in zip(_choices(prob), _choices(slot), strict=True)
    ]
    for term in others:
        home = home + term
    return home


def _choices(x: Tensor) -> Sequence[Tensor]:
    """x [B, S, K] -> K times [B, S, 1]."""
    return (x,) if x.shape[-1] == 1 else x.split(1, -1)


def _room(expert: Tensor, capacity: int | None, group: str) -> int:
    """Capacity, or the most rows that a dropless group can give one expert."""
    if capacity is not None:
        return capacity
    return expert.shape[1] if group == PER_SEQUENCE else expert.shape[0] * expert.shape[1]


# ---- One node each under torch.export.

_LIBRARY = torch.library.Library("moec", "DEF")
_LIBRARY.define(
    "route(Tensor logits, int top_k, int? capacity, str group, bool softmax_first) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define("dispatch(Tensor x, Tensor expert, Tensor place, int experts, int? capacity, str group) -> Tensor")
_LIBRARY.define("grouped_linear(Tensor rows, Tensor weight) -> Tensor")
_LIBRARY.define("collect(Tensor rows, Tensor prob, Tensor expert, Tensor place, str group) -> Tensor")


@torch.library.register_fake("moec::route", lib=_LIBRARY)
def _route_shapes(
    logits: Tensor, top_k: int, capacity: int | None, group: str, softmax_first: bool
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (*logits.shape[:2], top_k)
    return (
        logits.new_empty(shape),
        logits.new_empty(shape, dtype=torch.int64),
        logits.new_empty(shape, dtype=torch.int64),
    )


@torch.library.register_fake("moec::dispatch", lib=_LIBRARY)
def _dispatch_shapes(
    x: Tensor, expert: Tensor, place: Tensor, experts: int, capacity: int | None, group: str
) -> Tensor:
    groups = x.shape[0] if group == PER_SEQUENCE else 1
    return x.new_empty(experts, groups, _room(expert, capacity, group), x.shape[-1])


@torch.library.register_fake("moec::grouped_linear", lib=_LIBRARY)
def _grouped_linear_shapes(rows: Tensor, weight: Tensor) -> Tensor:
    return rows.new_empty(*rows.shape[:-1], weight.shape[1])


@torch.library.register_fake("moec::collect", lib=_LIBRARY)
def _collect_shapes(rows: Tensor, prob: Tensor, expert: Tensor, place: Tensor, group: str) -> Tensor:
    return rows.new_empty(*prob.shape[:2], rows.shape[-1])

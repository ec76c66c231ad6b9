"""Placements as types: what a value is on every axis of the mesh, and the collectives between two such types.

    I  invariant    the same data, the same work on every rank of the axis; so is its gradient
    R  replicated   the same data, used differently; its gradient is a partial sum
    S  sharded      a slice of one dim; its gradient is that slice
    P  partial      a summand (or a candidate for the maximum); its gradient is replicated

The theory is that of JAX's varying manual axes and of Meta's spmd_types. Axes here are the mesh's atoms.
"""

from dataclasses import dataclass, replace
from typing import Literal

Axes = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """The type of a value on all axes: those that shard each dim (major first), those of type P and R; else I."""

    split: tuple[Axes, ...]
    partial: Axes = ()
    replicated: Axes = ()
    highest: Axes = ()  # partial under max instead of sum: not differentiable

    def __post_init__(self) -> None:
        """Only the axes of one dim have an order."""
        object.__setattr__(self, "partial", tuple(sorted(self.partial)))
        object.__setattr__(self, "replicated", tuple(sorted(self.replicated)))
        object.__setattr__(self, "highest", tuple(sorted(self.highest)))

    def dim_of(self, axis: str) -> int | None:
        return next((dim for dim, axes in enumerate(self.split) if axis in axes), None)

    @property
    def axes(self) -> Axes:
        """Every axis on which the value is not invariant."""
        return (*(axis for axes in self.split for axis in axes), *self.partial, *self.replicated, *self.highest)

    def letter(self, axis: str) -> str:
        if self.dim_of(axis) is not None:
            return "S"
        return "P" if axis in self.partial + self.highest else "R" if axis in self.replicated else "I"

    def settled(self) -> "Placement":
        """The same data with R read as I, for values that carry no gradient."""
        return replace(self, replicated=())


def invariant(dims: int) -> Placement:
    return Placement(((),) * dims)


Kind = Literal[
    "all_reduce",
    "all_reduce_max",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "take",
    "spread",
    "first",
    "share",
    "keep",
    "gather_counts",
    "exchange_counts",
    "send_rows",
    "return_rows",
    "gather_rows",
    "scatter_rows",
]


@dataclass(frozen=True, slots=True)
class Move:
    """One collective of a coercion, forward, and its transpose, backward.

    `share` (I to R) and `keep` (R to I) do nothing forward. dim is what a gather joins or a slice cuts; an all_to_all
    cuts `dim` and joins `join`. The kinds with counts and rows move what is ragged, and have no dims.
    """

    kind: Kind
    axes: Axes
    after: Placement
    backward: Kind | None
    dim: int = -1
    join: int = -1

    @property
    def silent(self) -> bool:
        """No rank talks forward."""
        return self.kind in ("take", "spread", "first", "share", "keep")


def moves_between(source: Placement, target: Placement) -> tuple[Move, ...]:
    """The collectives that turn `source` into `target`, cheapest first where the order of axes on a dim allows it.

    Slices come before anything that sends, reductions and exchanges before gathers; neighbouring axes of one dim move
    in one collective on their product group.
    """
    moves: list[Move] = []
    now = source
    while now != target:
        move = _next_move(now, target)
        moves.append(move)
        now = move.after
    return tuple(moves)


def _next_move(now: Placement, target: Placement) -> Move:
    for find in (_take, _reduce_scatter, _all_to_all, _all_reduce, _all_gather, _relabel):
        move = find(now, target)
        if move is not None:
            return move
    raise AssertionError(f"no way from {now} to {target}")


def _wanted(now: Placement, target: Placement, dim: int) -> Axes:
    """Axes that `dim` still lacks, if what it has is the major part of what it should have."""
    have, want = now.split[dim], target.split[dim]
    return want[len(have) :] if want[: len(have)] == have else ()


def _surplus(now: Placement, target: Placement, dim: int) -> Axes:
    """The minor axes of `dim` that have to go before anything can be added to it."""
    have, want = now.split[dim], target.split[dim]
    common = 0
    while common < min(len(have), len(want)) and have[common] == want[common]:
        common += 1
    return have[common:]


def _with_split(placement: Placement, dim: int, axes: Axes) -> Placement:
    split = (*placement.split[:dim], axes, *placement.split[dim + 1 :])
    return replace(placement, split=split)


def _run(axes: Axes, letter: str, now: Placement) -> Axes:
    """The leading axes of one type."""
    run: list[str] = []
    for axis in axes:
        if now.letter(axis) != letter:
            break
        run.append(axis)
    return tuple(run)


def _take(now: Placement, target: Placement) -> Move | None:
    for dim in range(len(now.split)):
        wanted = _wanted(now, target, dim)
        for letter in "IR":
            run = _run(wanted, letter, now)
            if run:
                after = _with_split(now, dim, now.split[dim] + run)
                after = replace(after, replicated=_without(after.replicated, run))
                return Move("take", run, after, "all_gather" if letter == "I" else "spread", dim)
    return None


def _reduce_scatter(now: Placement, target: Placement) -> Move | None:
    for dim in range(len(now.split)):
        run = tuple(a for a in _run(_wanted(now, target, dim), "P", now) if a in now.partial)
        if run:
            after = _with_split(now, dim, now.split[dim] + run)
            after = replace(after, partial=_without(after.partial, run))
            return Move("reduce_scatter", run, after, "all_gather", dim)
    return None


def _all_to_all(now: Placement, target: Placement) -> Move | None:
    for join in range(len(now.split)):
        surplus = _surplus(now, target, join)
        for length in range(len(surplus), 0, -1):
            run = surplus[-length:]
            for dim in range(len(now.split)):
                if dim != join and _wanted(now, target, dim)[:length] == run:
                    after = _with_split(now, join, now.split[join][:-length])
                    after = _with_split(after, dim, now.split[dim] + run)
                    return Move("all_to_all", run, after, "all_to_all", dim, join)
    return None


def _all_reduce(now: Placement, target: Placement) -> Move | None:
    backwards: tuple[tuple[str, Kind | None], ...] = (("I", None), ("R", "all_reduce"))
    for letter, backward in backwards:
        run = tuple(axis for axis in now.partial if target.letter(axis) == letter)
        if run:
            after = replace(now, partial=_without(now.partial, run))
            if letter == "R":
                after = replace(after, replicated=_joined(after.replicated, run))
            return Move("all_reduce", run, after, backward)
    run = tuple(axis for axis in now.highest if target.letter(axis) != "P")
    if run:
        return Move("all_reduce_max", run, replace(now, highest=_without(now.highest, run)), None)
    return None


def _all_gather(now: Placement, target: Placement) -> Move | None:
    for dim in range(len(now.split)):
        surplus = _surplus(now, target, dim)
        if not surplus:
            continue
        wants_r = target.letter(surplus[-1]) == "R"
        run: list[str] = []
        for axis in reversed(surplus):
            if (target.letter(axis) == "R") != wants_r:
                break
            run.insert(0, axis)
        axes = tuple(run)
        if target.letter(axes[-1]) == "P":
            after = _with_split(now, dim, now.split[dim][:-1])
            return Move("spread", axes[-1:], replace(after, partial=_joined(after.partial, axes[-1:])), "take", dim)
        after = _with_split(now, dim, now.split[dim][: -len(axes)])
        if wants_r:
            after = replace(after, replicated=_joined(after.replicated, axes))
        return Move("all_gather", axes, after, "reduce_scatter" if wants_r else "take", dim)
    return None


def _relabel(now: Placement, target: Placement) -> Move | None:
    share = tuple(axis for axis in target.replicated if now.letter(axis) == "I")
    if share:
        return Move("share", share, replace(now, replicated=_joined(now.replicated, share)), "all_reduce")
    keep = tuple(axis for axis in now.replicated if target.letter(axis) in "IS")
    if keep:
        return Move("keep", keep, replace(now, replicated=_without(now.replicated, keep)), "first")
    first = tuple(axis for axis in target.partial if now.letter(axis) in "IR")
    if first:
        letter = now.letter(first[0])
        run = tuple(axis for axis in first if now.letter(axis) == letter)
        after = replace(now, partial=_joined(now.partial, run), replicated=_without(now.replicated, run))
        return Move("first", run, after, None if letter == "I" else "first")
    return None


def _without(axes: Axes, gone: Axes) -> Axes:
    return tuple(axis for axis in axes if axis not in gone)


def _joined(axes: Axes, more: Axes) -> Axes:
    return tuple(sorted({*axes, *more}))

"""The operators of a turn as frameworks with kernels of their own run them: fewer, and less through memory.

What several operators pass on element by element stays in registers; a product adds to the gradient of a weight itself;
no tensor is copied only to lie in memory otherwise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from moec.compiler.cost.kernels import Kernel
from moec.compiler.cost.recorder import Alive, Talk

Touched = tuple[tuple[int, int], ...]
"""Storages by number, with bytes; those of weights and gradients, that were there before, are not above 0."""

_OVER_ROWS = ("native_layer_norm", "rms_norm", "_softmax")
"""Begin the names of kernels that see whole rows: what comes after them is another kernel."""

_ADDS = "add_.Tensor"
_CASTS = "_to_copy"


def fuse(forward: Sequence[Alive], backward: Sequence[Alive]) -> tuple[tuple[Alive, ...], tuple[Alive, ...]]:
    """Both ways of a turn; they are taken together since what the backward reads has to be written."""
    same: dict[int, int] = {}
    both = tuple(_without_copies(_with_sums(way), same) for way in (forward, backward))
    runs = tuple(tuple(_runs(way)) for way in both)
    users: dict[int, int] = {}
    for run in chain(*runs):
        for number in {number for alive in run for number in alive.reads}:
            users[number] = users.get(number, 0) + 1
    first, second = (tuple(_joined(run, users) for run in way) for way in runs)
    return first, second


def _with_sums(events: Sequence[Alive]) -> list[Alive]:
    """Products that make gradients of weights, with what casts the gradients and adds them up."""
    made: dict[int, tuple[int, ...]] = {}  # where a storage was made, and what it was cast from
    found: dict[int, Alive] = {}
    for place, alive in enumerate(events):
        found[place] = alive
        kernel = alive.event
        if not isinstance(kernel, Kernel):
            continue
        if kernel.kind in ("product", "grouped"):
            made[kernel.writes[0][0]] = (place,)
        elif kernel.name == _CASTS and kernel.reads[0][0] in made:
            made[kernel.writes[0][0]] = (*made[kernel.reads[0][0]], place)
        elif kernel.name == _ADDS and (places := _source(kernel, made)):
            product, *casts = places
            found[product] = replace(found[product], event=_adding(found[product].event, kernel))
            for gone in (*casts, place):
                del found[gone]
    return list(found.values())


def _source(kernel: Kernel, made: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    """Which product made what the kernel adds to a gradient, if one did."""
    (target, _), *sources = kernel.reads
    return next((made[number] for number, _ in sources if number in made), ()) if target <= 0 else ()


def _adding(product: Kernel | object, kernel: Kernel) -> Kernel:
    assert isinstance(product, Kernel)
    target = kernel.writes[0]
    moved = product.moved - product.writes[0][1] + 2 * target[1]
    return replace(product, moved=moved, reads=(*product.reads, target), writes=(target,), gradient=True)


def _without_copies(events: Sequence[Alive], same: dict[int, int]) -> tuple[Alive, ...]:
    """Without copies of what attention, a gather or a scatter has made or is given: they are given as they want it.

    `same` says for a copy that is gone which storage stands for it.
    """
    found: list[Alive] = []
    for place, alive in enumerate(events):
        kernel = alive.event
        if isinstance(kernel, Kernel):
            kernel = replace(kernel, reads=tuple((same.get(number, number), size) for number, size in kernel.reads))
            if kernel.name == "clone" and _is_layout(events, place):
                same[kernel.writes[0][0]] = kernel.reads[0][0]
                continue
            alive = replace(alive, event=kernel)
        found.append(alive)
    return tuple(found)


def _is_layout(events: Sequence[Alive], place: int) -> bool:
    """Whether a neighbour of a copy is a gather, a scatter, or attention."""
    beside = [events[other].event for other in (place - 1, place + 1) if 0 <= other < len(events)]
    return any(
        event.kind in ("all_gather", "reduce_scatter")
        if isinstance(event, Talk)
        else isinstance(event, Kernel) and event.kind in ("attention", "attention_backward")
        for event in beside
    )


def _runs(events: Sequence[Alive]) -> Iterator[tuple[Alive, ...]]:
    """Cut before and after all that does not join, and after kernels that see whole rows."""
    run: list[Alive] = []
    for alive in events:
        joins = isinstance(alive.event, Kernel) and alive.event.joins
        if run and not joins:
            yield tuple(run)
            run = []
        run.append(alive)
        if not joins or _sees_rows(alive.event):
            yield tuple(run)
            run = []
    if run:
        yield tuple(run)


def _sees_rows(event: object) -> bool:
    return isinstance(event, Kernel) and event.name.startswith(_OVER_ROWS)


def _joined(run: tuple[Alive, ...], users: dict[int, int]) -> Alive:
    """One kernel that reads what was made elsewhere, and writes what is read elsewhere or nowhere."""
    kernels = [alive.event for alive in run if isinstance(alive.event, Kernel)]
    if len(run) == 1 or not kernels:
        return run[0]
    made = {number for kernel in kernels for number, _ in kernel.writes}
    inside = {number for kernel in kernels for number, _ in kernel.reads}
    reads = _distinct([each for kernel in kernels for each in kernel.reads if each[0] not in made or each[0] <= 0])
    writes = _distinct(
        [
            each
            for kernel in kernels
            for each in kernel.writes
            if each[0] <= 0 or each[0] not in inside or users.get(each[0], 0) > 1
        ]
    )
    moved = sum(size for _, size in (*reads, *writes))
    name = max(kernels, key=lambda kernel: kernel.moved).name
    return Alive(Kernel(name, "memory", 0.0, moved, region=kernels[0].region, reads=reads, writes=writes), run[-1].held)


def _distinct(touched: Sequence[tuple[int, int]]) -> Touched:
    """Each part of a storage once."""
    return tuple(dict.fromkeys(touched))

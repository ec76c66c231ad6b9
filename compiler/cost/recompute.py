"""What a turn keeps less of for its backward, and what its backward computes again for it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from moec.compiler.cost.kernels import Kernel
from moec.compiler.cost.passes import Segment
from moec.compiler.cost.recorder import Alive, Talk


@dataclass(frozen=True, slots=True)
class Turn:
    """One call of a unit, forward and backward."""

    forward: Segment
    backward: Segment
    released: frozenset[int] = frozenset()
    """Storages that both make and neither keeps for the other, by number."""


def recompute_layer(turn: Turn) -> Turn:
    """Keep the input alone, which is as large as what the turn ends with, and begin the backward with the forward."""
    forward, backward = turn.forward, turn.backward
    last = forward.events[-1].event
    assert isinstance(last, Kernel), "a layer ends with an addition"
    kept = last.writes[-1][1]
    again = (*forward.events, *(replace(alive, held=alive.held + forward.growth) for alive in backward.events))
    released = release(turn, kept_by(turn)).forward
    return Turn(
        replace(released, growth=kept),
        replace(backward, events=again, growth=backward.growth + forward.growth - kept),
    )


def recompute_attention(turn: Turn) -> Turn:
    """Keep queries, keys and values, and of what follows up to the output of attention nothing."""
    core = _core(turn.forward)
    made = {number for alive in core for number in alive.made}
    kept = {number: size for number, size in kept_by(turn).items() if number in made}
    if not kept:
        return turn
    found = release(turn, kept)
    place = next(n for n, alive in enumerate(found.backward.events) if alive.reads.keys() & kept.keys())
    held = found.backward.events[place - 1].held if place else 0
    again = tuple(Alive(alive.event, held + alive.held - core[0].held) for alive in core)
    events = found.backward.events
    return replace(found, backward=replace(found.backward, events=(*events[:place], *again, *events[place:])))


def recompute_operators(turn: Turn) -> Turn:
    """Keep what attention and exchanges made, and of products every second one's result; compute again the others, and
    what goes through memory, up to the last that the backward reads.

    Products that were joined count as so many: half of each is computed again, and half of its result is kept.
    """
    events, needed = turn.forward.events, kept_by(turn)
    made = {number: alive.event for alive in events for number in alive.made}
    released: dict[int, int] = {}
    for number, size in needed.items():
        kernel = made[number]
        if isinstance(kernel, Kernel) and kernel.kind in ("product", "memory"):
            released[number] = size // 2 if kernel.kind == "product" else size
    if not released:
        return turn
    last = max(n for n, alive in enumerate(events) if alive.made.keys() & released.keys())
    found = release(turn, released)
    again: list[Alive] = []
    held = 0
    for alive in events[: last + 1]:
        held += sum(released.get(number, 0) for number in alive.made)
        if isinstance(alive.event, Kernel) and alive.event.kind in ("product", "memory"):
            again.append(Alive(_half(alive.event) if alive.event.kind == "product" else alive.event, held))
    less = sum(released.values())
    back = [replace(alive, held=alive.held + less) for alive in turn.backward.events]
    return Turn(found.forward, replace(turn.backward, events=(*again, *back), growth=found.backward.growth))


def _half(product: Kernel) -> Kernel:
    """Half of its columns."""
    count, rows, columns, depth = product.sizes
    sizes = (count, rows, -(-columns // 2), depth)
    return replace(product, sizes=sizes, flops=product.flops / 2, moved=product.moved // 2)


def gather_again(turn: Turn) -> Turn:
    """Keep nothing that was gathered, and gather it again before the backward first reads it."""
    kept = kept_by(turn)
    talks = [alive.event for alive in turn.forward.events if isinstance(alive.event, Talk)]
    for talk in talks:
        if talk.kind == "all_gather" and talk.result in kept:
            turn = release(turn, {talk.result: kept[talk.result]})
            events = turn.backward.events
            place = next(n for n, alive in enumerate(events) if talk.result in alive.reads)
            again = Alive(replace(talk, again=True), events[place].held)
            turn = replace(turn, backward=replace(turn.backward, events=(*events[:place], again, *events[place:])))
    return turn


def drop_intermediate(turn: Turn) -> Turn:
    """Keep no result of a kernel that goes through memory, if only such kernels read it and its operands are kept."""
    kept, names = kept_by(turn), {}
    for alive in turn.forward.events:
        if isinstance(alive.event, Kernel) and alive.event.joins:
            names |= dict.fromkeys(alive.made, alive.event)
    others = {n for alive in turn.backward.events if not _joins(alive) for n in alive.reads}
    dropped = {
        number: size
        for number, size in kept.items()
        if number in names and number not in others and all(n in kept for n, s in names[number].reads if s >= size)
    }
    return release(turn, dropped)


def drop_returned(turn: Turn) -> Turn:
    """Keep nothing of what experts send back: what an exchange brings that no product reads, and what is made of it."""
    events, kept = turn.forward.events, kept_by(turn)
    talks = [alive.event for alive in events if isinstance(alive.event, Talk)]
    returned = {talk.result for talk in talks if talk.kind == "all_to_all"}
    returned -= {number for alive in events if not _joins(alive) for number in alive.reads}
    users = [alive for alive in events if _joins(alive) and returned & alive.reads.keys()]
    made = {number for alive in users for number in alive.made}
    return release(turn, {number: kept[number] for number in returned | made if number in kept})


def copy_once(turn: Turn) -> Turn:
    """Make no second copy of anything: experts that read rows twice read one copy."""
    first: dict[tuple[tuple[int, int], ...], int] = {}
    kept = kept_by(turn)
    for alive in turn.forward.events:
        kernel = alive.event
        if isinstance(kernel, Kernel) and kernel.name == "clone":
            (number, size), stands = kernel.writes[0], first.setdefault(kernel.reads, kernel.writes[0][0])
            if number != stands and number in kept:
                turn = _without_copy(turn, number, stands, size)
    return turn


def _without_copy(turn: Turn, number: int, stands: int, size: int) -> Turn:
    forward, backward = list(turn.forward.events), list(turn.backward.events)
    made = next(n for n, alive in enumerate(forward) if number in alive.made)
    last = max(n for n, alive in enumerate(backward) if number in alive.reads)
    forward[made:] = [replace(alive, held=alive.held - size) for alive in forward[made + 1 :]]
    backward[last + 1 :] = [replace(alive, held=alive.held + size) for alive in backward[last + 1 :]]
    return Turn(
        replace(turn.forward, events=_renamed(forward, number, stands), growth=turn.forward.growth - size),
        replace(turn.backward, events=_renamed(backward, number, stands), growth=turn.backward.growth + size),
    )


def _renamed(events: list[Alive], number: int, stands: int) -> tuple[Alive, ...]:
    found: list[Alive] = []
    for alive in events:
        if isinstance(alive.event, Kernel) and number in alive.reads:
            reads = tuple((stands if each == number else each, size) for each, size in alive.event.reads)
            alive = replace(alive, event=replace(alive.event, reads=reads))
        found.append(alive)
    return tuple(found)


def kept_by(turn: Turn) -> dict[int, int]:
    """Storages that the forward makes and the backward reads, with their bytes, but for what was released."""
    read = {number for alive in turn.backward.events for number in alive.reads}
    made: dict[int, int] = {}
    for alive in turn.forward.events:
        made |= alive.made
    return {number: size for number, size in made.items() if number in read and number not in turn.released}


def release(turn: Turn, storages: Mapping[int, int]) -> Turn:
    """Free them after their last use forward, and have them anew when the backward first reads them."""
    forward, backward = list(turn.forward.events), list(turn.backward.events)
    for number, size in storages.items():
        last = max(n for n, alive in enumerate(forward) if number in alive.reads or number in alive.made)
        first = min(n for n, alive in enumerate(backward) if number in alive.reads)
        forward[last + 1 :] = [replace(alive, held=alive.held - size) for alive in forward[last + 1 :]]
        backward[first:] = [replace(alive, held=alive.held + size) for alive in backward[first:]]
    less = sum(storages.values())
    return Turn(
        replace(turn.forward, events=tuple(forward), growth=turn.forward.growth - less),
        replace(turn.backward, events=tuple(backward), growth=turn.backward.growth + less),
        turn.released | storages.keys(),
    )


def _core(segment: Segment) -> tuple[Alive, ...]:
    """From the first to the last product of two activations, or fused attention."""
    places = [n for n, alive in enumerate(segment.events) if _attends(alive)]
    return segment.events[places[0] : places[-1] + 1] if places else ()


def _attends(alive: Alive) -> bool:
    kernel = alive.event
    if not isinstance(kernel, Kernel):
        return False
    two_activations = kernel.kind == "grouped" and all(number > 0 for number, _ in kernel.reads)
    return kernel.kind == "attention" or two_activations


def _joins(alive: Alive) -> bool:
    return isinstance(alive.event, Kernel) and alive.event.joins

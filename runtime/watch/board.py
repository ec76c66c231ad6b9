"""Cards and pulses of ranks, in the job's store."""

from collections.abc import Iterable

from moec.runtime.store import Store
from moec.runtime.watch.pulse import Card, Pulse, read_card, read_pulse, written


def post_card(store: Store, rank: int, card: Card) -> None:
    store.set(f"watch/card/{rank}", written(card))


def post_pulse(store: Store, rank: int, pulse: Pulse) -> None:
    store.set(f"watch/pulse/{rank}", written(pulse))


def post_left(store: Store, rank: int) -> None:
    """This rank ends, and has said all that there is to say."""
    store.set(f"watch/left/{rank}", "")


def has_left(store: Store, rank: int) -> bool:
    return store.check([f"watch/left/{rank}"])


def card_of(store: Store, rank: int) -> Card | None:
    """None of a rank that has never been heard of."""
    key = f"watch/card/{rank}"
    return read_card(store.get(key)) if store.check([key]) else None


def pulse_of(store: Store, rank: int) -> Pulse | None:
    key = f"watch/pulse/{rank}"
    return read_pulse(store.get(key)) if store.check([key]) else None


def pulses_of(store: Store, ranks: Iterable[int]) -> dict[int, Pulse]:
    """Of those that have one."""
    found = {rank: pulse_of(store, rank) for rank in ranks}
    return {rank: pulse for rank, pulse in found.items() if pulse is not None}

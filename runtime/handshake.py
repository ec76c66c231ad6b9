"""Before the first collective: are all ranks there, and do they run the same job on the same data?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

from moec.runtime.store import Store
from moec.runtime.words import ranks_text


class Refusal(Exception):
    """The ranks must not start together; the message is for the user."""


def shake_hands(
    board: Store,
    rank: int,
    world: int,
    host: str,
    facts: Mapping[str, str],
    own: str,
    fault: str,
    timeout: timedelta,
    name: str = "moec",
) -> list[str]:
    """Raise Refusal on all ranks unless all come in time, with the same facts and without a fault of their own.

    Whoever comes last looks at what all have said, and whoever waits in vain first says so to all: they hear the same,
    at the same time. What each says of its `own`, a word, may differ, and comes back.
    A job may do it several times, each under a name of its own.
    """
    card = _Card(host, fault, own, dict(facts))
    board.set(f"{name}/{rank}", json.dumps(asdict(card)))
    if board.add(f"{name}/arrived", 1) == world:
        cards = [_Card(**json.loads(board.get(f"{name}/{other}"))) for other in range(world)]
        board.set(f"{name}/own", " ".join([card.own for card in cards]))
        board.set(f"{name}/verdict", _faults(cards) or _difference(cards))
    try:
        board.wait([f"{name}/verdict"], timeout)
    except RuntimeError:
        come = board.add(f"{name}/arrived", world) - world  # from here on no one is the last
        if come < world:
            missing = [other for other in range(world) if not board.check([f"{name}/{other}"])]
            late = f"{len(missing)} of {world} have not come: {ranks_text(missing)}"
            board.set(f"{name}/verdict", f"after {timeout.total_seconds():.0f} s, {late}")
        board.wait([f"{name}/verdict"], timeout)
    verdict = board.get(f"{name}/verdict").decode()
    if verdict:
        raise Refusal(verdict)
    return board.get(f"{name}/own").decode().split()


@dataclass(frozen=True, slots=True)
class _Card:
    """What one rank says of itself."""

    host: str
    fault: str  # what keeps it from starting, if anything does
    own: str
    facts: dict[str, str]


def _faults(cards: Sequence[_Card]) -> str:
    """What keeps ranks from starting; who they are, unless it is all of them."""
    if all(card.fault == cards[0].fault for card in cards):
        return cards[0].fault
    said = _grouped([(card.host, card.fault) for card in cards])
    lines = [f"{ranks_text(ranks)} on {host}: {fault}" for (host, fault), ranks in said.items() if fault]
    others = sum(not card.fault for card in cards)
    return "\n".join([*lines, f"  not so on {others} of {len(cards)} ranks: each machine reads files of its own"])


def _difference(cards: Sequence[_Card]) -> str:
    """The first fact that is not the same on all ranks, with who says what."""
    for name, fact in cards[0].facts.items():
        if any(card.facts[name] != fact for card in cards):
            said = _grouped([(card.host, card.facts[name]) for card in cards])
            lines = [f"  {ranks_text(ranks)} on {host}: {what}" for (host, what), ranks in said.items()]
            return "\n".join([f"{name} is not the same on all ranks", *lines])
    return ""


def _grouped(said: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[int]]:
    """Ranks by what they say."""
    ranks: dict[tuple[str, str], list[int]] = {}
    for rank, words in enumerate(said):
        ranks.setdefault(words, []).append(rank)
    return ranks

"""Finds what a misspelt name was meant to be."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one is closest to, if one is close."""
    names = {candidate.lower(): candidate for candidate in known}
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return names[close[0]] if close else None


def did_you_mean(name: str, known: Iterable[str], what: str) -> tuple[str, ...]:
    """Help for an unknown name: the nearest known one, or else all of them."""
    candidates = tuple(known)
    close = nearest(name, candidates)
    if close:
        return (f"did you mean `{close}`?",)
    return (f"{what}: {listed(candidates)}" if candidates else f"there are no {what}",)


def listed(names: Iterable[str], last: str = "and") -> str:
    """`a`, `b` and `c`."""
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {last} {quoted[-1]}"

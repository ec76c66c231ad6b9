"""Parts of messages: several ranks, or several things that are wrong, in few words."""

from collections.abc import Sequence

_SHOWN = 8


def ranks_text(ranks: Sequence[int]) -> str:
    """`rank 3`, `ranks 0 to 3`, `ranks 0, 2, 5 and 9 more`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if list(ranks) == list(range(ranks[0], ranks[-1] + 1)):
        return f"ranks {ranks[0]} to {ranks[-1]}"
    shown = ", ".join([str(rank) for rank in ranks[:_SHOWN]])
    return f"ranks {shown} and {len(ranks) - _SHOWN} more" if len(ranks) > _SHOWN else f"ranks {shown}"


def some(what: str, items: Sequence[str]) -> list[str]:
    """A line for each of the first, `  what: item`, and how many more there are."""
    lines = [f"  {what}: {item}" for item in items[:_SHOWN]]
    return [*lines, f"  and {len(items) - _SHOWN} more like that"] if len(items) > _SHOWN else lines

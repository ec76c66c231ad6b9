"""Parts of messages: several ranks, or several things that are wrong, in few words."""

from collections.abc import Sequence

_SHOWN = 8
_LONG = 300  # characters of another's words that a line has room for


def ranks_text(ranks: Sequence[int]) -> str:
    """`rank 3`, `ranks 0 to 3`, `ranks 0, 2, 5 and 9 more`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if list(ranks) == list(range(ranks[0], ranks[-1] + 1)):
        return f"ranks {ranks[0]} to {ranks[-1]}"
    shown = ", ".join([str(rank) for rank in ranks[:_SHOWN]])
    return f"ranks {shown} and {len(ranks) - _SHOWN} more" if len(ranks) > _SHOWN else f"ranks {shown}"


def one_line(said: str) -> str:
    """What another program said, maybe in several lines, as part of one."""
    line = joined_lines(said)
    return line if len(line) <= _LONG else f"{line[:_LONG]}..."


def joined_lines(said: str) -> str:
    """All of it in one line."""
    return " ".join(filter(None, [part.strip() for part in said.splitlines()]))


def error_text(error: BaseException) -> str:
    """`ValueError: what it says`, also of one that cannot say it."""
    try:
        said = one_line(str(error))
    except Exception:
        said = ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def some(what: str, items: Sequence[str]) -> list[str]:
    """A line for each of the first, `  what: item`, and how many more there are."""
    lines = [f"  {what}: {item}" for item in items[:_SHOWN]]
    return [*lines, f"  and {len(items) - _SHOWN} more like that"] if len(items) > _SHOWN else lines

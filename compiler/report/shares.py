"""Parts of a whole, as text and as widths of bars."""


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def width(share: float) -> str:
    """Of a bar, in percent of its room: never more than all of it."""
    return f"{100 * min(1.0, max(0.0, share)):.3g}"

"""Divisors, and how a fold tiles the ranks that its axes tile already: which sizes nest, and why one does not."""

import math
from collections.abc import Mapping

_MOST_SIZES = 12
"""That a message lists."""


def take_fastest(count: int, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
    """How many ranks of each axis the fastest `count` ranks of a block are, or None where the two tilings do not nest.

    `sizes` are the sizes of the block's axes, slowest first: 8 of (4, 4) are (2, 4), and 8 of (6,) are None.
    """
    taken: list[int] = []
    for size in reversed(sizes):
        if count % size and size % count:
            return None
        taken.append(math.gcd(count, size))
        count //= taken[-1]
    return tuple(reversed(taken)) if count == 1 else None


def fold_sizes(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes above 1 that a fold over axes of these sizes (slowest first) can have."""
    found: set[int] = set()
    inner = 1
    for size in reversed(sizes):
        found |= {inner * part for part in divisors(size)}
        inner *= size
    return tuple(sorted(found - {1}))


def say_tilings_apart(fold: str, size: int, block: Mapping[str, int]) -> str:
    """Where the tiling of a block of ranks by its axes (name to size, slowest first) and that by a fold part."""
    over = " * ".join(f"`{name}`" for name in block)
    ranks = math.prod(block.values())
    twice = "the ranks are tiled twice"
    if size > ranks:
        blocks = f"by {over} in blocks of {ranks}, and by `{fold}` in blocks of {size}"
        return f"{twice}: {blocks}, for which there are not enough: a fold adds no ranks"
    names: list[str] = []
    tile, left = 1, size
    for name, ranks in reversed(list(block.items())):
        names.insert(0, f"`{name}`")
        tile *= ranks
        if left % ranks and left > ranks:
            blocks = f"by {' * '.join(names)} in blocks of {tile}, and by `{fold}` in blocks of {size}"
            rest = f"{size} % {tile} = {size % tile}"
            return f"{twice}: {blocks}; {rest}, so a block of `{fold}` would end inside one of the others"
        if left % ranks:
            rest = f"{ranks} % {left} = {ranks % left} would be left over"
            return f"{twice}: a block of `{fold}` would take {left} of the {ranks} of {names[0]}, and {rest}"
        left //= ranks
    raise AssertionError(f"{fold} nests")


def divisors(number: int) -> tuple[int, ...]:
    """The whole numbers that divide a positive one, ascending."""
    low = [part for part in range(1, math.isqrt(number) + 1) if number % part == 0]
    return tuple(sorted({*low, *(number // part for part in low)}))


def say_divisors(number: int, near: int) -> str:
    """The divisors above 1 of a positive number, of many those closest to `near`: `2, 4, 8`."""
    parts = [part for part in divisors(number) if part > 1] or [1]
    return ", ".join(map(str, sorted(sorted(parts, key=lambda part: abs(part - near))[:_MOST_SIZES])))

"""A pass as it runs: its segments repeat, and here every turn is written out."""

from collections.abc import Iterator
from itertools import groupby

from moec.compiler.cost.pass_time import PassTime, Piece


def turns(done: PassTime) -> Iterator[Piece]:
    """Every piece as often as it runs, in order; neighbours that run equally often are of one segment.

    Segments that run once may be taken for one, which changes nothing. Of those that repeat no two are neighbours: the
    first and the last turn of every loop are segments of their own (dry_run).
    """
    for times, group in groupby(done.pieces, key=lambda pair: pair[1]):
        pieces = [piece for piece, _ in group]
        for _ in range(times):
            yield from pieces

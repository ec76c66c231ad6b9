"""Cuts a row of weights into pieces: the heaviest is as light as can be, and the rest as even."""

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

Cuts = tuple[int, ...]


def cut_evenly(weights: Sequence[float], places: Sequence[int], count: int) -> Cuts:
    """Where pieces begin, but for the first: at some of `places`. Of cuts that are as good, the first.

    Requires: `places` rise, and are `count - 1` or more.
    """
    prefix = [0.0, *accumulate(weights)]
    starts = [0, *places, len(weights)]
    # Pieces that go on as long as they are below the mean stay within this; so do the best ones.
    within = prefix[-1] / count + max(prefix[end] - prefix[begin] for begin, end in pairwise(starts)) * (1 + 1e-9)
    heaviest, _ = _best(prefix, starts, count, within, max)
    _, cuts = _best(prefix, starts, count, heaviest, lambda squares, weight: squares + weight * weight)
    return cuts


def _best(
    prefix: Sequence[float], starts: Sequence[int], count: int, most: float, add: Callable[[float, float], float]
) -> tuple[float, Cuts]:
    """Of cuts into pieces of at most `most`, that of the least score, to which `add` adds a piece."""
    best: dict[int, tuple[float, Cuts]] = {0: (0.0, ())}
    for left in reversed(range(count)):  # pieces after this one
        reached: dict[int, tuple[float, Cuts]] = {}
        for begin, (score, cuts) in best.items():
            for end in range(begin + 1, len(starts)):
                weight, rest = prefix[starts[end]] - prefix[starts[begin]], prefix[-1] - prefix[starts[end]]
                if weight > most:
                    break
                if (left == 0) != (end == len(starts) - 1) or rest > left * most * (1 + 1e-9):
                    continue
                candidate = (add(score, weight), (*cuts, starts[end]))
                reached[end] = min(candidate, reached.get(end, candidate))
        best = reached
    ((score, cuts),) = best.values()
    return score, cuts[:-1]

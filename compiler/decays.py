"""Which weights decay: by custom those of two dims or more, not norms and biases; patterns of the plan change it."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from moec.dsl.plan import Train


def decays(train: Train, name: str, dims: int) -> bool:
    """Whether the weight of this full name does, if any does at all."""
    return not _matches(name, train.undecayed) and (dims > 1 or _matches(name, train.decayed))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

"""Names that are not taken yet."""

from collections.abc import Container
from itertools import count


def unique(name: str, taken: Container[str], between: str = "_") -> str:
    """The name, or the name with the first number from 2 on that makes it a new one."""
    if name not in taken:
        return name
    return next(numbered for n in count(2) if (numbered := f"{name}{between}{n}") not in taken)

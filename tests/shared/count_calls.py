"""Counts calls of Python functions: what tests bound where seconds would depend on the machine."""

from collections.abc import Callable
from cProfile import Profile


def count_calls(function: Callable[[], object]) -> int:
    """How many calls of functions it is, its own among them; what it raises goes on."""
    profile = Profile(subcalls=False, builtins=False)
    profile.enable()
    try:
        function()
    finally:
        profile.disable()
    return sum(entry.callcount + entry.reccallcount for entry in profile.getstats())

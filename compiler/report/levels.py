"""The memory that goes with each pass of a stage."""

from collections.abc import Sequence
from dataclasses import dataclass

from moec.compiler.cost.memory import Memory
from moec.compiler.cost.simulate import Span


@dataclass(frozen=True, slots=True)
class Level:
    """Bytes beside those that are held for all steps."""

    kept: int
    """By micro-batches under way, while the pass runs."""
    working: int
    """At the peak of the pass, beside these."""
    after: int
    """Kept when it is done, until the next pass begins."""


def with_levels(spans: Sequence[Span], memory: Memory) -> list[Level | None]:
    """The level of every span that is a pass; `memory` has them in the order of the schedule."""
    levels, before = iter(memory.levels), 0
    found: list[Level | None] = []
    for span in spans:
        level = next(levels, None) if span.name in ("forward", "backward") else None
        if level is None:
            found.append(None)
            continue
        _, _, peak, held = level
        after = held - memory.held.total
        kept = min(before, after)
        found.append(Level(kept, peak - memory.held.total - kept, after))
        before = after
    return found

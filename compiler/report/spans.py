"""The spans of a step by stage."""

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.simulate import Span


def spans_of_stages(found: Estimate) -> list[list[Span]]:
    """In order of time."""
    spans: list[list[Span]] = [[] for _ in found.time.stages]
    for span in found.time.spans:
        spans[span.stage].append(span)
    return spans

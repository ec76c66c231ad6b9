"""Which experts a router chose, over the steps: a cell for each expert and run of steps."""

from collections.abc import Sequence
from dataclasses import dataclass

from moec.compiler.plot.amounts import share
from moec.compiler.plot.thin import runs

_COLUMNS, _ROWS = 60, 64
_STEEP = 2.0
"""Times an even share: what is chosen so often, or more often, has the darkest colour."""


@dataclass(frozen=True, slots=True)
class Cell:
    """`shade` is how dark it is, in percent."""

    column: int
    row: int
    shade: str
    title: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Experts from above, steps from the left."""

    title: str
    columns: int
    rows: int
    cells: tuple[Cell, ...]
    note: str


def heat_map(router: str, loads: Sequence[tuple[int, list[float]]]) -> HeatMap | None:
    """Sums of neighbouring steps, and of neighbouring experts, where there are many."""
    experts = len(loads[-1][1])
    loads = [(step, counts) for step, counts in loads if len(counts) == experts and sum(counts)]
    if not loads:
        return None
    bands = list(runs(range(experts), _ROWS))
    cells: list[Cell] = []
    columns = list(runs(loads, _COLUMNS))
    for column, some in enumerate(columns):
        counts = [sum(values) for values in zip(*(counts for _, counts in some), strict=True)]
        for row, band in enumerate(bands):
            part = sum(counts[expert] for expert in band) / sum(counts)
            shade = min(1.0, part * experts / len(band) / _STEEP)
            said = f"{_span('step', some[0][0], some[-1][0])}, {_span('expert', band[0], band[-1])}: {share(part)}"
            cells.append(Cell(column, row, f"{100 * shade:.0f}", said))
    last = [counts for _, counts in columns[-1]]
    total = [sum(values) for values in zip(*last, strict=True)]
    note = f"at the end the fullest has {max(total) * experts / sum(total):.2f} x the mean"
    return HeatMap(router, len(columns), len(bands), tuple(cells), note)


def _span(what: str, first: int, last: int) -> str:
    return f"{what} {first}" if first == last else f"{what}s {first} to {last}"

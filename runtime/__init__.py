"""moec's runtime: what the emitted rank programs import.

Collectives by the name of their mesh axes, the tape of regions, weights and their initial values, AdamW, and the loop
that runs a rank program. `moec.runtime.simulated` runs all ranks of a job in one process.
"""

from moec.runtime.collectives import (
    Pending,
    all_gather,
    all_gather_start,
    all_reduce,
    all_reduce_max,
    all_reduce_max_start,
    all_reduce_start,
    all_reduce_together,
    all_to_all,
    all_to_all_start,
    coordinate,
    first,
    group_size,
    reduce_scatter,
    reduce_scatter_start,
    spread,
    take,
    wait,
)
from moec.runtime.communicator import Slot
from moec.runtime.ragged import exchange_counts, gather_counts, gather_rows, return_rows, scatter_rows, send_rows
from moec.runtime.run import Run
from moec.runtime.tape import Tape, accumulate
from moec.runtime.weights import Weight

__all__ = [
    "Pending",
    "Run",
    "Slot",
    "Tape",
    "Weight",
    "accumulate",
    "all_gather",
    "all_gather_start",
    "all_reduce",
    "all_reduce_max",
    "all_reduce_max_start",
    "all_reduce_start",
    "all_reduce_together",
    "all_to_all",
    "all_to_all_start",
    "coordinate",
    "exchange_counts",
    "first",
    "gather_counts",
    "gather_rows",
    "group_size",
    "reduce_scatter",
    "reduce_scatter_start",
    "return_rows",
    "scatter_rows",
    "send_rows",
    "spread",
    "take",
    "wait",
]

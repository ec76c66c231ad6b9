"""The process that starts the ranks: on CPUs they are copies of it, which has imported what they need."""

import json
import os
import sys
from dataclasses import asdict
from multiprocessing import connection, get_context
from pathlib import Path

from moec.compiler.cost.calibrate.order import Order
from moec.compiler.cost.calibrate.rank import measure_as

ORDER = "order.json"
"""The file that says what is to be measured."""

ERROR = "moec-calibrate: "
"""What the line begins with that says why a rank did not finish."""


def result(folder: Path, rank: int) -> Path:
    """The file of what a rank has measured."""
    return folder / f"{rank}.json"


def main(folder: Path) -> int:
    """Run all ranks; 1 as soon as one of them fails."""
    order = Order(**json.loads((folder / ORDER).read_text(encoding="utf-8")))
    alike = order.device != "cuda" and sys.platform == "linux"  # a copy could not use a GPU
    start = get_context("fork") if alike else get_context("spawn")
    ranks = [start.Process(target=_run, args=(rank, order, folder), daemon=True) for rank in range(order.ranks)]
    for process in ranks:
        process.start()
    running = ranks
    while running:
        connection.wait([process.sentinel for process in running])
        running = [process for process in ranks if process.exitcode is None]
        if any(process.exitcode for process in ranks):
            return 1  # which ends the others
    return 0


def _run(rank: int, order: Order, folder: Path) -> None:
    try:
        found = measure_as(rank, order, folder)
    except Exception as fault:
        said = f"rank {rank}: {type(fault).__name__}: {fault}"
        print(ERROR + " ".join(said.split()), file=sys.stderr, flush=True)
        os._exit(1)  # threads may hang in a collective that no one will join
    result(folder, rank).write_text(json.dumps(asdict(found)), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

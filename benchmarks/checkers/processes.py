"""What torch itself notices: python benchmarks/checkers/processes.py, with a process a rank over gloo.

TORCH_DISTRIBUTED_DEBUG=DETAIL compares the calls of a group's members. One place of each kind of fault is seeded into
the programs of one plan, which then take two steps. Prints for each kind what became of it: `detail` if torch's message
names calls that differ, `stopped` if the job ended with any other error, `timed out`, or `silent`.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from matrix import ROOT, TABLES, Bench
from mutate import Mutant

SECONDS = 20
"""After which a rank no longer waits for another."""

_NAMED = re.compile(r"Detected mismatch between collectives|monitoredBarrier|failed to pass monitoredBarrier")


def outcome(bench: Bench, mutant: Mutant | None) -> str:
    """One of `detail`, `stopped`, `timed out` and `silent`."""
    if mutant is not None:
        (bench.build / mutant.file).write_text(mutant.text, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(bench.program.world_size)]
    command += ["--", str(bench.build / "main.py"), "--steps", "2", "--timeout", str(SECONDS)]
    environment = {**os.environ, "TORCH_DISTRIBUTED_DEBUG": "DETAIL", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=6 * SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "timed out"
    finally:
        if mutant is not None:
            (bench.build / mutant.file).write_text(bench.files[mutant.file], encoding="utf-8")
    said = done.stdout + done.stderr
    if done.returncode == 0:
        return "silent"
    if _NAMED.search(said):
        return "detail"
    return "timed out" if re.search(r"[Tt]imed? ?out", said) else "stopped"


def main() -> None:
    parser = argparse.ArgumentParser(description="What torch's own checks notice of faults.")
    parser.add_argument("--plan", default="examples/tiny_moe.plan")
    parser.add_argument("--kinds", nargs="*", default=None, help="those alone")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moec-processes-") as folder:
        bench = Bench.of(given.plan, Path(folder))
        print(f"no fault: {outcome(bench, None)}", flush=True)
        counts: Counter[str] = Counter()
        for kinds in TABLES.values():
            for mutant in kinds.mutants(bench.files, 1):
                if given.kinds is None or mutant.kind in given.kinds:
                    found = outcome(bench, mutant)
                    counts[found] += 1
                    print(f"{mutant.kind}: {found}", flush=True)
    print(", ".join(f"{what} {count}" for what, count in counts.most_common()))


if __name__ == "__main__":
    main()

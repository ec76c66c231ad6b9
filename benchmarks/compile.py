"""Time and memory of `moec compile`: the flagship, four times its layers, 32 times its ranks.

    python benchmarks/compile.py [--runs N]

Each compile is a process of its own, import of torch included, and writes every rank's file. The better of N runs
counts.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PLAN = Path(__file__).parents[1] / "examples" / "30b_moe.plan"

CASES = {
    "30b_moe": (),
    "4 times the layers": ("model.layers=64",),
    "32 times the ranks": ("mesh.dp=64", "schedule.batch=8192"),
}


@dataclass(frozen=True, slots=True)
class Run:
    """One compile: seconds of CPU and of wall time, the largest resident memory in MiB, and what it wrote."""

    cpu: float
    wall: float
    memory: float
    ranks: int
    size: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of moec compile.")
    parser.add_argument("--runs", type=int, default=2, help="compiles of each plan (%(default)s)")
    runs = parser.parse_args().runs
    print(f"{'':20}  {'CPU s':>6}  {'wall s':>6}  {'MiB':>5}  {'ranks':>6}  {'MB':>5}  CPU, of the first")
    first = 0.0
    for name, overrides in CASES.items():
        best = min((compile_once(overrides) for _ in range(runs)), key=lambda run: run.cpu)
        first = first or best.cpu
        numbers = f"{best.cpu:6.1f}  {best.wall:6.1f}  {best.memory:5.0f}  {best.ranks:6}  {best.size:5.1f}"
        print(f"{name:20}  {numbers}  {best.cpu / first:.2f}", flush=True)


def compile_once(overrides: tuple[str, ...]) -> Run:
    """Compile the flagship with some values overridden, to a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="moec-compile-") as folder:
        options = [word for override in overrides for word in ("--set", override)]
        command = [sys.executable, "-m", "moec", "compile", str(PLAN), "-o", f"{folder}/out", *options]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(said)
        sizes = [path.stat().st_size for path in Path(folder, "out").glob("*.py")]
        ranks = len(list(Path(folder, "out").glob("rank_*.py")))
    return Run(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, ranks, sum(sizes) / 1e6)


if __name__ == "__main__":
    main()

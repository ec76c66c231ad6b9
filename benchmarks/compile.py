"""Time and peak memory of compiling the largest example, with twice its layers, and with a mesh of many more ranks.

    python benchmarks/compile.py

Each compile is a process of its own; its memory is the most that was resident.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

PLAN = Path(__file__).parents[1] / "examples" / "30b_moe.plan"
CASES = ((), ("model.layers=64",), ("mesh.dp=64", "schedule.batch=8192"))


def main() -> None:
    first = None
    for overrides in CASES:
        seconds, mebibytes = compile_in_process(overrides)
        first = first or (seconds, mebibytes)
        line = f"{' '.join(overrides) or 'as it is':32} {seconds:6.2f} s {mebibytes:6.0f} MiB"
        print(f"{line}   {seconds / first[0]:.2f} of the time, {mebibytes / first[1]:.2f} of the memory", flush=True)


def compile_in_process(overrides: tuple[str, ...]) -> tuple[float, float]:
    """A process between, whose only child it is: the peak is of all children that ended."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--measure", str(PLAN), *overrides, "-o", str(Path(folder) / "out")]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(printed[-2]), float(printed[-1])


def measure(arguments: list[str]) -> None:
    start = time.perf_counter()
    command = [sys.executable, "-m", "moec", "compile", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2:])
    else:
        main()

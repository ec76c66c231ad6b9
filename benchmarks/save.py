"""What a save costs a run: how long it holds training up, how fast it is written, and what memory it takes.

    python benchmarks/save.py [--mebibytes 512] [--rounds 5]

One rank with so much state (weights and two moments, float32), saved by the saver that main.py uses, between steps of
its own. Beside it: a plain copy of the same bytes in memory, and a plain write of them to the same disk, in turns.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch

from moec.runtime.checkpoint.pieces import Piece
from moec.runtime.checkpoint.snapshot import Snapshot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    pieces = state(options.mebibytes)
    before = resident()
    snapshot = Snapshot(pieces)
    snapshot.take()
    grown = resident() - before
    copies = [piece.value.clone() for piece in pieces]
    took, copied, written, plain = [], [], [], []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as name:
        for i in range(options.rounds):
            copied.append(
                seconds(lambda: [copy.copy_(piece.value) for copy, piece in zip(copies, pieces, strict=True)])
            )
            took.append(seconds(snapshot.take))
            plain.append(seconds(lambda i=i: write_plainly(Path(name) / f"plain_{i}", pieces)))
            written.append(seconds(lambda i=i: snapshot.write(Path(name) / f"rank_{i:05d}.safetensors")))
            (Path(name) / f"rank_{i:05d}.safetensors").unlink()
    size = snapshot.nbytes
    own = sum(piece.value.nbytes for piece in pieces)
    mine, plainly = size / median(written) / 1e6, size / median(plain) / 1e6
    print(f"{size / 2**20:.0f} MiB of state, {options.rounds} rounds, medians")
    print(
        f"held up     {1e3 * median(took):.0f} ms, by a plain copy {1e3 * median(copied):.0f} ms: {ratio(took, copied)}"
    )
    print(f"written at  {mine:.0f} MB/s, plainly at {plainly:.0f} MB/s: {ratio(plain, written)}")
    print(f"memory      {grown / 2**20:.0f} MiB more, for {own / 2**20:.0f} MiB of state")


def state(mebibytes: int) -> list[Piece]:
    """Weights and moments of 8 layers of equal size."""
    rows = mebibytes * 2**20 // (24 * 4 * 1024)
    shape = (rows, 1024)
    names = [f"{part}/layers.{layer}.weight" for layer in range(8) for part in ("weight", "mean", "square")]
    return [Piece(name, shape, ((0, rows), (0, 1024)), torch.rand(shape), True) for name in names]


def copy(pieces: Sequence[Piece], copies: Sequence[torch.Tensor]) -> None:
    for piece, place in zip(pieces, copies, strict=True):
        place.copy_(piece.value)


def write_plainly(path: Path, pieces: list[Piece]) -> None:
    with open(path, "wb", buffering=0) as file:
        for piece in pieces:
            file.write(piece.value.numpy().data)
        os.fsync(file.fileno())
    path.unlink()


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def seconds(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median of ratios within a round, and how far they spread."""
    found = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return f"x {median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


if __name__ == "__main__":
    main()

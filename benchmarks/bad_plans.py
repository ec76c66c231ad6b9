"""Seconds in which `moec check` answers bad plans, as a user would run it: without a trace, and with one.

    python benchmarks/bad_plans.py [--runs N]

Each answer is a process of its own, import included; the best of N runs counts. Where no trace of the model is needed,
torch is not imported either. Ends with status 1 if the slowest of a kind takes more CPU time than moec promises.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

GOOD = """\
model m {
  layers = 4   hidden = 64   heads = 4   vocab = 256   seq = 64   ffn = 128
}
mesh { pp = 2   dp = 2   tp = 2 }
shard { layers over pp   batch over dp   heads, ffn, vocab over tp }
schedule 1f1b { batch = 16   accumulate = 4 }
"""

IMPORTED = """\
model m = python "module:Net" {
  width = 12
  small { width = 6 }
  inputs { x = float[batch, width] }
}
mesh { dp = 2 }
shard { batch over dp }
schedule gpipe { batch = 8 }
"""

MODULE = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        for layer in self.layers:
            x = WHAT
        return LOSS
"""


def text(old: str = "", new: str = "") -> str:
    """The good plan with a piece replaced."""
    assert old in GOOD
    return GOOD.replace(old, new) if old else GOOD


UNTRACED: dict[str, str | bytes] = {
    "empty": "",
    "half a plan": GOOD[: len(GOOD) // 2],
    "100 MB": b"#" * 100_000_000,
    "64 KiB of unknown settings": text("layers = 4", "\n".join(f"hidde{n} = 1" for n in range(3500))),
    "64 KiB of a sum": text("layers = 4", "layers = 4" + "\n- 1" * 16_000),
    "64 KiB of one word": text("layers = 4", "layers = 4 " + "x\n" * 2 + "\n".join(["y" * 9_900] * 6)),
    "64 KiB of brackets": text("layers = 4", "layers = " + "(\n" * 30_000),
    "64 KiB of blocks": text() + "\n".join(f"b{n} {{ }}" for n in range(6500)),
    "64 KiB of names": "let a0 = 3\n" + "\n".join(f"let a{n + 1} = a{n} * a{n}" for n in range(2_200)) + GOOD,
    "32 axes, all too large": text("pp = 2", "\n".join(f"a{n} = 2_147_483_647" for n in range(29)) + " pp = 2"),
    "misspelt": text("hidden", "hiden"),
    "a size that does not divide": text("tp = 2", "tp = 3"),
    "no such axis": text("over tp", "over tq"),
    "a fold that does not nest": text("tp = 2 }", "tp = 2   ep = 6 over dp, tp }"),
}
"""Plans that reading alone finds at fault."""

TRACED = {
    "raises at import": "1 / 0",
    "raises in its forward": MODULE.replace("WHAT", "layer(y)").replace("LOSS", "x.mean()"),
    "branches on data": MODULE.replace("WHAT", "x if x.sum() > 0 else layer(x)").replace("LOSS", "x.mean()"),
    "an operator without a rule": MODULE.replace("WHAT", "layer(x).cumprod(0)").replace("LOSS", "x.mean()"),
    "random numbers": MODULE.replace("WHAT", "layer(torch.dropout(x, 0.5, True))").replace("LOSS", "x.mean()"),
    "no loss": MODULE.replace("WHAT", "layer(x)").replace("LOSS", "x"),
}
"""Modules that only a trace finds at fault."""

PROMISED = {"no trace needed": 2.0, "traced": 6.0}
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Seconds of the processor and of wall time, and whether torch was imported."""

    cpu: float
    wall: float
    torch: bool


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds in which moec check answers bad plans.")
    parser.add_argument("--runs", type=int, default=2, help="answers to each plan (%(default)s)")
    runs = parser.parse_args().runs
    print(f"{'':16} {'CPU s':>6} {'wall s':>6}")
    with tempfile.TemporaryDirectory(prefix="moec-bad-plans-") as name:
        folder = Path(name)
        plans = {plan: _plan(folder, number, text) for number, (plan, text) in enumerate(UNTRACED.items())}
        kept = _measure("no trace needed", plans, runs)
        modules = {
            plan: _module(folder / f"module_{number}", text) for number, (plan, text) in enumerate(TRACED.items())
        }
        kept &= _measure("traced", modules, runs)
    sys.exit(0 if kept else 1)


def answer(plan: Path) -> Answer:
    """Ask once; the answer must be a code and status 2."""
    command = [sys.executable, "-X", "importtime", "-m", "moec", "check", plan.name]
    with tempfile.TemporaryFile("w+") as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=plan.parent, stdout=subprocess.DEVNULL, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().splitlines()
    imports = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    text = "\n".join(line for line in lines if not line.startswith("import time:"))
    if process.returncode != 2 or "error[E" not in text or "Traceback" in text:
        sys.exit(f"{plan}: status {process.returncode}\n{text[-2000:]}")
    return Answer(usage.ru_utime + usage.ru_stime, wall, "torch" in imports)


def _measure(kind: str, plans: dict[str, Path], runs: int) -> bool:
    """Print the seconds of each, and of the slowest; whether that kept the promise."""
    best: list[Answer] = []
    for name, path in plans.items():
        each = min((answer(path) for _ in range(runs)), key=lambda answer: answer.cpu)
        print(
            f"{kind:16} {each.cpu:6.2f} {each.wall:6.2f}  {name}{', torch imported' if each.torch else ''}", flush=True
        )
        best.append(each)
    slowest = max(best, key=lambda answer: answer.cpu)
    print(
        f"{kind:16} {slowest.cpu:6.2f} {slowest.wall:6.2f}  the slowest; promised: {PROMISED[kind]:.0f} s", flush=True
    )
    return slowest.cpu <= PROMISED[kind] and (kind == "traced" or not any(each.torch for each in best))


def _plan(folder: Path, number: int, written: str | bytes) -> Path:
    path = folder / f"{number}.plan"
    path.write_bytes(written.encode() if isinstance(written, str) else written)
    return path


def _module(folder: Path, source: str) -> Path:
    folder.mkdir()
    (folder / "module.py").write_text(source)
    (folder / "m.plan").write_text(IMPORTED)
    return folder / "m.plan"


if __name__ == "__main__":
    main()

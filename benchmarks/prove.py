"""What a proof takes: the check without numbers at 512 and 4,096 ranks, and the whole proof of the shape of Llama 405B.

    python benchmarks/prove.py

Each is a process of its own, import of torch and compile included.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"

CASES = {
    "check 30b_moe, 512 ranks": ("check", "30b_moe.plan"),
    "check, 4,096 ranks": ("check", "30b_moe.plan", "mesh.dp=16", "schedule.batch=2048"),
    "verify llama_405b": ("verify", "llama_405b.plan"),
    "verify, 8 times the layers": ("verify", "llama_405b.plan", "model.layers=1008"),
}


@dataclass(frozen=True, slots=True)
class Proof:
    """Seconds of CPU, the largest resident memory in MiB, seconds of the check alone."""

    cpu: float
    memory: float
    checked: float


def main() -> None:
    print(f"{'':28}  {'CPU s':>6}  {'MiB':>5}  {'the check, s':>12}")
    for name, (command, plan, *overrides) in CASES.items():
        proof = prove(command, plan, overrides)
        print(f"{name:28}  {proof.cpu:6.1f}  {proof.memory:5.0f}  {proof.checked:12.2f}", flush=True)


def prove(command: str, plan: str, overrides: list[str]) -> Proof:
    """Run moec once; ends with its message if the plan fails."""
    options = [word for override in overrides for word in ("--set", override)]
    arguments = [sys.executable, "-m", "moec", command, str(EXAMPLES / plan), "--json", *options]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"moec {command} {plan} failed: {said}")
    return Proof(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, json.loads(said)["checked"]["seconds"])


if __name__ == "__main__":
    main()

"""Prints what checkpoints withstand: saves that are killed, files that are damaged, and other meshes that read them.

    python benchmarks/checkpoints.py killed
    python benchmarks/checkpoints.py damaged --count 1000
    python benchmarks/checkpoints.py pairs --count 100
    python benchmarks/checkpoints.py flagship

`killed` ends a small save at each of its calls that write, in turn, and also in the middle of each write. `damaged`
damages a small checkpoint in ten ways. `pairs` draws plans, and for each two meshes of its model: what the one
saves the other loads. `flagship` does the same with `examples/30b_moe.plan`, shrunken in width and length alone:
512 ranks save and 24 go on, all in this process. All of them are what tests/runtime/checkpoint does, with more
cases; what is compared with is read by the safetensors library and json alone.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
sys.path[:0] = [str(TESTS / name) for name in ("runtime/checkpoint", "runtime", "equivalence")]

import killed_save  # noqa: E402
from damage_it import damage  # noqa: E402
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from test_killed import in_a_child, loaded  # noqa: E402
from test_pairs import Pair, check, pairs  # noqa: E402

from moec.checkpoint.damage import Damage  # noqa: E402
from moec.checkpoint.verify import faults_of  # noqa: E402
from moec.runtime.checkpoint.read import Checkpoint  # noqa: E402

SMALL = ("model.hidden=32", "model.heads=8", "model.kv_heads=4", "model.head_dim=4", "model.vocab=64", "model.seq=8")
SMALL += ("model.experts.hidden=8", "train.precision=fp64")


def killed(folder: Path, _: int) -> None:
    for half in (False, True):
        first, found, at, ended = folder / "first", Counter[int](), 0, -1
        shutil.rmtree(first, ignore_errors=True)
        in_a_child(first, 3, 0, half)
        while ended != 0:
            at += 1
            now = folder / "now"
            shutil.copytree(first, now)
            ended = in_a_child(now, 6, at, half)
            assert ended in (0, signal.SIGKILL)
            found[loaded(now)] += 1
            shutil.rmtree(now)
        where = "in the middle of each write" if half else "before each call that writes"
        print(f"killed {where}, {at - 1} calls: {found[3]} gave the old state, {found[6]} the new one, 0 another")


def damaged(folder: Path, count: int) -> None:
    killed_save.save(folder / "run", 3)
    whole = folder / "run" / "step_00000003"
    kinds, verified, read = Counter[str](), 0, 0
    draw = random.Random(0)
    for _ in range(count):
        bad = folder / "bad" / whole.name
        shutil.rmtree(bad.parent, ignore_errors=True)
        shutil.copytree(whole, bad)
        kind, name = damage(bad, draw)
        kinds[kind] += 1
        verified += any(name in fault or kind == "rename" for fault in faults_of(bad))
        try:
            with Checkpoint.open(bad) as checkpoint:
                checkpoint.read("weight/w", ((0, 60), (0, 50)))
        except Damage:
            read += 1
    print(f"{count} damaged ({', '.join(f'{kind} {n}' for kind, n in sorted(kinds.items()))})")
    print(f"refused with the file's name by verify: {verified}, refused by a load: {read}")


def loaded_elsewhere(folder: Path, count: int) -> None:
    done = Counter[str]()
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

    @settings(max_examples=count, deadline=None, phases=[Phase.generate], suppress_health_check=quiet)
    @given(pair=pairs(world=24))
    def run(pair) -> None:
        check(pair, folder)
        done["pairs"] += 1

    run()
    print(f"{done['pairs']} pairs of plans: the state is the same bit for bit; three more steps equal those of the run")
    print("that never stopped, to 1e-9 under fp64")


def flagship(folder: Path, _: int) -> None:
    text = (ROOT / "examples/30b_moe.plan").read_text(encoding="utf-8")
    check(Pair(text, (SMALL, (*SMALL, "mesh.pp=3", "mesh.dp=1", "mesh.ep=4", "mesh.tp=2"))), folder)
    print("the flagship shrunken: 24 ranks (pp 3, dp 1, ep 4, tp 2) hold the state that 512 (pp 4, dp 2, ep 16, tp 4)")
    print("saved bit for bit, and three more steps have the losses of the run that never stopped to 1e-9")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(KINDS))
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        KINDS[options.what](Path(name), options.count)


KINDS = {"killed": killed, "damaged": damaged, "pairs": loaded_elsewhere, "flagship": flagship}


if __name__ == "__main__":
    main()

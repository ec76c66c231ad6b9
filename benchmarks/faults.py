"""Break real jobs of eight processes in all ways at random ranks and steps, and count how often the culprit is named.

    python benchmarks/faults.py --count 100

Each job is the compiled `examples/tiny_moe.plan` under torchrun, with a copy of its folder in which one rank's file is
edited to fail (`injected/inject.py`); the runtime knows nothing of it. Printed are, by kind: how many were named, by
rank and step, in the last line of moec's own; the seconds from that line, or from the end of the first process, to the
end of the last; what was left behind; and whom torchrun's report names by itself, when nobody watches (--alone).
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).parents[1]
WORLD = 8
STAGE_REGIONS = ("attn_norm", "attn", "ffn_norm_router", "ffn", "read_slots", "add")
ENDS = ("killed", "segfault", "aborted", "memory error", "tensor too large", "exception", "data unreadable")
ENDS += ("exit 0", "exit at once", "stopped", "endless loop", "hangs")
SPOILS = ("NaN in a region", "infinity in a region", "NaN in a weight", "infinity in a weight", "a copy drifts")
OTHERS = ("SIGTERM", "torchrun gets SIGTERM", "slow", "another program", "never starts")
KINDS = (*ENDS, *SPOILS, *OTHERS)
TIMEOUT = 15  # seconds that ranks wait for others
COPIES = ("attn_norm.weight", "ffn_norm.weight", "ffn.router.weight")  # which all ranks of a stage have


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens where and when."""

    kind: str
    rank: int
    step: int
    micro_batch: int
    phase: str
    region: str
    nth: int  # layer of the stage, from 1
    weight: str

    @staticmethod
    def drawn(kind: str, draw: random.Random) -> "Fault":
        rank = draw.randrange(WORLD)
        layer = 2 * (rank // (WORLD // 2)) + draw.randrange(2)
        return Fault(
            kind,
            rank,
            draw.randint(2, 9),
            draw.randrange(4) if "weight" not in kind and "copy" not in kind else 0,  # none may be under way
            draw.choice(("forward", "backward")),
            draw.choice(STAGE_REGIONS),
            draw.randint(1, 2),
            f"layers.{layer}.{draw.choice(COPIES)}",
        )

    def record(self) -> dict[str, object]:
        """As inject.py reads it."""
        kept = ["kind", "step", "micro_batch", "phase"]
        kept += ["region", "nth"] if "region" in self.kind else ["weight"] if self.kind in SPOILS else []
        return {name: getattr(self, name) for name in kept}


@dataclass(slots=True)
class Outcome:
    """What a job under a fault came to."""

    status: int
    lines: list[tuple[float, str]]
    gone: float  # when the last process was gone, by the same clock as the lines
    ended: float  # when the first one was
    left: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=len(KINDS), help="faults in all, over the kinds in turn")
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS, metavar="KIND")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", action="store_true", help="nobody watches: whom does torchrun name?")
    parser.add_argument("--show", action="store_true", help="what each job said")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        built = Path(place) / "built"
        compile_to(built)
        counts: dict[str, list[bool]] = {}
        seconds: list[float] = []
        left: list[str] = []
        for n in range(options.count):
            fault = Fault.drawn(options.kinds[n % len(options.kinds)], draw)
            outcome = run(fault, built, Path(place) / f"job {n}", options.alone)
            named = named_by_torchrun(fault, outcome) if options.alone else is_named(fault, outcome)
            took = took_to_end(outcome)
            counts.setdefault(fault.kind, []).append(named)
            seconds += [took] if fault.kind in (*ENDS, *SPOILS) else []
            left += outcome.left
            said = last_words(outcome)
            print(f"{'named' if named else 'NOT NAMED'}  {fault.kind}, rank {fault.rank}, step {fault.step}", end="")
            print(f": status {outcome.status}, {took:.1f} s\n    {said}", flush=True)
            if options.show:
                print(outcome.text)
    report(counts, seconds, left)


def report(counts: Mapping[str, list[bool]], seconds: list[float], left: list[str]) -> None:
    for kind, named in counts.items():
        print(f"{kind:24} {sum(named)} of {len(named)}")
    everything = [named for found in counts.values() for named in found]
    print(f"culprit named            {sum(everything)} of {len(everything)}")
    if seconds:
        print(
            f"seconds until all gone   {max(seconds):.1f} at most, {sorted(seconds)[len(seconds) // 2]:.1f} the median"
        )
    print(f"left behind              {', '.join(left) or 'nothing'}")


def compile_to(folder: Path) -> None:
    command = [sys.executable, "-m", "moec", "compile", str(ROOT / "examples/tiny_moe.plan"), "-o", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


# ---- One job.


def run(fault: Fault, built: Path, place: Path, alone: bool = False) -> Outcome:
    folder = prepare(fault, built, place, alone)
    temporary = place / "temporary"
    temporary.mkdir()
    shared = set(os.listdir("/dev/shm"))
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(WORLD), "--", str(folder / "main.py")]
    command += ["--steps", "60" if fault.kind == "slow" else "14", "--timeout", str(TIMEOUT), "--check-copies", "1"]
    command += ["--save", str(place / "saved"), "--every", "5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary), "PYTHONWARNINGS": "ignore"}
    job = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[tuple[float, str]] = []
    reader = Thread(target=lambda: lines.extend((time.monotonic(), line.rstrip()) for line in job.stdout or ()))
    reader.start()
    ended, gone = follow(fault, job, folder, lines)
    status = job.wait()
    reader.join(timeout=10)
    left = [f"process {pid}" for pid in processes(folder)]
    left += [f"/dev/shm/{name}" for name in set(os.listdir("/dev/shm")) - shared]
    left += [str(path) for path in temporary.iterdir() if not path.name.startswith("torchelastic_")]
    outcome = Outcome(status, lines, gone, ended, left)
    for pid in processes(folder):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(place)
    return outcome


def prepare(fault: Fault, built: Path, place: Path, alone: bool) -> Path:
    """A copy of the job's folder, in which one rank fails."""
    folder = place / "job"
    shutil.copytree(built, folder)
    shutil.copy(ROOT / "benchmarks/injected/inject.py", folder)
    (folder / "fault.json").write_text(json.dumps(fault.record()))
    own = folder / f"rank_{fault.rank:03d}.py"
    main = folder / "main.py"
    if fault.kind == "never starts":
        edit(main, "from pathlib", sleeping(fault.rank) + "from pathlib")
    elif fault.kind == "another program":
        other = place / "other"
        shutil.copytree(folder, other)
        edit(other / f"stage_{fault.rank // 4}.py", "1e-05", "1e-06")
        edit(main, "main(Path(__file__).parent)", f"import os\n    main({elsewhere(fault.rank, other)})")
    elif fault.kind != "torchrun gets SIGTERM":
        edit(own, "as stage\n", "as stage\nfrom inject import wrap\n\nwrap(stage)\n")
    if alone:
        edit(
            main,
            "if __name__",
            "from moec.runtime.watch import Watch\n\nWatch.start = lambda self: None\n\nif __name__",
        )
    return folder


def sleeping(rank: int) -> str:
    return f'import os, time\n\nif os.environ["RANK"] == "{rank}":\n    time.sleep(1e6)\n'


def elsewhere(rank: int, other: Path) -> str:
    return f'Path({str(other)!r}) if os.environ["RANK"] == "{rank}" else Path(__file__).parent'


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def follow(
    fault: Fault, job: subprocess.Popen[str], folder: Path, lines: list[tuple[float, str]]
) -> tuple[float, float]:
    """When the first and when the last process of the job was gone."""
    most, ended, asked = 0, 0.0, False
    start = time.monotonic()
    while True:
        now, alive = time.monotonic(), len(processes(folder))
        most = max(most, alive)
        if alive < most and not ended:
            ended = now
        if most and not alive and (job.poll() is not None or most >= WORLD):
            return ended, now
        if fault.kind == "torchrun gets SIGTERM" and not asked and any(line.startswith("step 3/") for _, line in lines):
            asked = True
            job.send_signal(signal.SIGTERM)
        if now - start > 900 or (job.poll() is not None and not alive):
            return ended or now, now
        time.sleep(0.05)


def processes(folder: Path) -> list[int]:
    """Of the job's ranks: torchrun is none, though its command line has their program too."""
    return [
        pid for pid, line in command_lines() if str(folder / "main.py") in line and "torch.distributed.run" not in line
    ]


def command_lines() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if "State:\tZ" not in (entry / "status").read_text():
                    yield int(entry.name), (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue


# ---- What it said.


def is_named(fault: Fault, outcome: Outcome) -> bool:
    """In the last line that moec wrote, with the status that belongs to it."""
    said = last_words(outcome)
    if fault.kind in ("SIGTERM", "torchrun gets SIGTERM"):
        return outcome.status != 0 and "ended by SIGTERM after step" in said and "--resume" in said
    if fault.kind == "slow":
        warned = [line for _, line in outcome.lines if re.match(rf"warning: rank {fault.rank} on \S+ is slow", line)]
        return outcome.status == 0 and len(warned) == 1
    if fault.kind == "another program":
        return bool(re.search(rf"^  rank {fault.rank} on ", outcome.text, re.M)) and outcome.status != 0
    if fault.kind == "never starts":
        return f"1 of {WORLD} have not come: rank {fault.rank}" in outcome.text and outcome.status != 0
    rank = re.match(rf"rank {fault.rank} on \S+ ", said)
    step = re.search(rf"step {fault.step}\b", said)
    where = fault.kind not in SPOILS or (fault.region if "region" in fault.kind else fault.weight) in said
    return bool(rank and step and where and outcome.status != 0)


def named_by_torchrun(fault: Fault, outcome: Outcome) -> bool:
    """As the root cause in its report."""
    root = outcome.text.rpartition("Root Cause")[2]
    return bool(re.search(rf"rank +: {fault.rank} ", root))


def took_to_end(outcome: Outcome) -> float:
    """From when it was first known, by its line or by the end of a process, to the end of all."""
    known = [at for at, line in outcome.lines if re.match(r"rank \d+ on ", line)]
    return outcome.gone - min([outcome.ended or outcome.gone, *known[-1:]])


def last_words(outcome: Outcome) -> str:
    """moec's own, which torchrun's report follows."""
    said = [
        line
        for _, line in outcome.lines
        if re.match(r"(rank \d+ on|ended by|after|the program is|warning: rank)", line)
    ]
    return said[-1] if said else "(nothing)"


if __name__ == "__main__":
    main()

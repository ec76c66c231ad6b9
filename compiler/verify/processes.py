"""Runs rank programs as real processes under torchrun, which talk over gloo, and brings back what they came to."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moec.compiler.reference.experts import Routing
from moec.compiler.verify.run_ranks import Outcome, Setting, load_ranks, run_rank
from moec.compiler.verify.shrink import Units
from moec.runtime import communicator
from moec.runtime.distributed import connect, find_store
from moec.runtime.job import read_job
from moec.runtime.launch import environment, torchrun
from moec.runtime.place import place_of

TIMEOUT = 120.0
"""Seconds that a process waits for another."""

_ORDER = "order.json"  # in the folder of the programs: what each process is to run


class Failed(Exception):
    """Processes that ended without a result; the message is what the first of them said."""


@dataclass(frozen=True, slots=True)
class _Order:
    units: tuple[Units, ...]
    edited: bool
    timeout: float


@dataclass(slots=True)
class _Sheet:
    """An outcome without its tensors."""

    losses: list[float]
    steps: int
    decisions: int
    where: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


def run_processes(
    folder: Path, world: int, units: tuple[Units, ...], edited: bool, timeout: float = TIMEOUT
) -> list[Outcome]:
    """What every rank of the folder comes to as a process of its own. Raises Failed; leaves no process behind."""
    (folder / _ORDER).write_text(json.dumps(asdict(_Order(units, edited, timeout))), encoding="utf-8")
    command = torchrun(world, "--module", __name__, str(folder))
    with subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        try:
            _, said = started.communicate()
        except BaseException:
            os.killpg(started.pid, signal.SIGTERM)  # torchrun ends its workers
            raise
    if started.returncode:
        raise Failed(_first_error(said))
    return [_read(folder, rank) for rank in range(world)]


def main(folder: Path) -> None:
    """One process: the rank that the environment names."""
    torch.set_num_threads(1)
    order = _read_order(folder)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    timeout = timedelta(seconds=order.timeout)
    model = read_job(folder / "plan.json").model
    sys.path[:0] = model.path if model is not None else ()
    setting = Setting.of(folder)
    (module,) = load_ranks(folder, [rank], world, order.units, order.edited)
    store = find_store(rank, world, timeout)
    ranks = connect(store, rank, world, place_of(module).groups, torch.device("cpu"), timeout)
    communicator.use(ranks)
    try:
        outcome = run_rank(module, setting)
    except Exception as fault:
        where = f"{_ERROR}rank {rank}: {type(fault).__name__}: {fault}"
        print(" ".join(where.split()), file=sys.stderr, flush=True)
        os._exit(1)  # other threads may hang in a collective that no one will join
    _write(folder, rank, outcome)
    ranks.close()


_ERROR = "moec-verify: "


def _first_error(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    own = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    return own[0] if own else lines[-1] if lines else "the processes ended and said nothing"


def _read_order(folder: Path) -> _Order:
    given = json.loads((folder / _ORDER).read_text(encoding="utf-8"))
    units = tuple(tuple((name, tuple(prefixes)) for name, prefixes in stage) for stage in given["units"])
    return _Order(units, given["edited"], given["timeout"])


def _write(folder: Path, rank: int, outcome: Outcome) -> None:
    tensors: dict[str, Tensor] = {f"w {name}": value for name, value in outcome.weights.items()}
    for step, gradients in enumerate(outcome.gradients):
        tensors |= {f"g{step} {name}": value for name, value in gradients.items()}
    for number, decision in enumerate(outcome.decisions):
        tensors |= {f"e{number}": decision.expert, f"k{number}": decision.kept}
    sheet = _Sheet(outcome.losses, len(outcome.gradients), len(outcome.decisions))
    sheet.where = {name: [(part.start, part.stop) for part in where] for name, where in outcome.where.items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / f"outcome_{rank}.safetensors")
    (folder / f"outcome_{rank}.json").write_text(json.dumps(asdict(sheet)), encoding="utf-8")


def _read(folder: Path, rank: int) -> Outcome:
    sheet = _Sheet(**json.loads((folder / f"outcome_{rank}.json").read_text(encoding="utf-8")))
    tensors = load_file(folder / f"outcome_{rank}.safetensors")
    return Outcome(
        losses=sheet.losses,
        gradients=[_named(tensors, f"g{step} ") for step in range(sheet.steps)],
        weights=_named(tensors, "w "),
        where={name: tuple(slice(*part) for part in where) for name, where in sheet.where.items()},
        decisions=[Routing(tensors[f"e{n}"], tensors[f"k{n}"]) for n in range(sheet.decisions)],
    )


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))

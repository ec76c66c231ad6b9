"""The loop of one process of a job: what the emitted main.py calls."""

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from socket import gethostname
from typing import TextIO

import torch
from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

import moec
from moec.runtime import communicator
from moec.runtime.allocator import keep_freed_memory
from moec.runtime.certificate import Local, mixed, warning
from moec.runtime.data import DataFault, open_source
from moec.runtime.distributed import connect, find_store
from moec.runtime.handshake import Refusal, shake_hands
from moec.runtime.initial import Initial
from moec.runtime.job import Job, read_job
from moec.runtime.launch import rank_name
from moec.runtime.module_values import ModelFault, ModuleValues
from moec.runtime.place import place_of
from moec.runtime.run import NotFinite, NothingValid, Run

_TALKING = ("distributed.py", "exchange.py", "links.py")  # where an error is that another rank's end makes


def main(folder: str | Path, arguments: list[str] | None = None) -> None:
    """Train the job in `folder` as the rank that the environment names. Ends the process if that fails."""
    folder = Path(folder).resolve()
    job = read_job(folder / "plan.json")
    options = _options(job, arguments)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world != job.world_size:
        command = f"torchrun --nproc-per-node {job.world_size} {folder / 'main.py'}"
        _stop(
            f"{job.name} is a job of {job.world_size} processes, and this is {world}: {command}" if rank == 0 else "", 2
        )
    try:
        store = find_store(rank, world, timedelta(seconds=options.timeout))
    except RuntimeError as fault:
        _stop(f"rank {rank}: {fault}", 1)
        return
    try:
        _train(folder, job, options, rank, store)
    except (DataFault, ModelFault, Refusal) as fault:
        _stop_together(str(fault))
    except NotFinite as fault:
        _stop("" if "another rank" in str(fault) else f"rank {rank}: {fault}", 1)
    except NothingValid as fault:
        _stop(str(fault) if rank == 0 else "", 1)
    except Exception as error:
        _stop(_report(error, rank, folder, store), 1)


def _options(job: Job, arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Train {job.name} on {job.world_size} processes, under torchrun.")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps (%(default)s)")
    parser.add_argument("--data", metavar="PATH", help="a text file or a folder; by default Python's own library")
    parser.add_argument("--seed", type=int, default=job.training.seed, help="of weights and data (%(default)s)")
    parser.add_argument("--log", metavar="FILE", help="metrics as JSON lines")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--timeout", type=float, default=300.0, help="seconds that a rank waits for others (%(default)s)"
    )
    return parser.parse_args(arguments)


def _train(folder: Path, job: Job, options: argparse.Namespace, rank: int, store: Store) -> None:
    sys.path[:0] = [str(folder), *(job.model.path if job.model else ())]
    name = rank_name(rank, job.world_size)
    rank_module = importlib.import_module(name)
    place = place_of(rank_module)
    device = _device(options.device)
    timeout = timedelta(seconds=options.timeout)
    local = Local.read(folder, f"{name}.py")
    facts = {
        "the program": local.digest,
        "moec": moec.__version__,
        "torch": torch.__version__,
        "the seed": str(options.seed),
    }
    try:
        source = open_source(job, options.data, options.seed)
        values = ModuleValues(job.model, options.seed) if job.model else None
        log = _open_log(options.log if rank == 0 else None)
    except (DataFault, ModelFault) as fault:
        shake_hands(store, rank, job.world_size, gethostname(), facts, local.card, str(fault), timeout)
        raise
    facts["the data"] = source.fingerprint
    cards = shake_hands(store, rank, job.world_size, gethostname(), facts, local.card, "", timeout)
    refused = mixed(cards)
    doubt = warning(folder, local, cards) if refused or rank == 0 else ""
    if doubt and refused:
        raise Refusal(refused)
    _warn(doubt, folder)
    ranks = connect(store, rank, job.world_size, place.groups, device, timeout)
    communicator.use(ranks)
    run = Run(rank_module, job, Initial(options.seed, values), source, device)
    with log:
        for _ in range(options.steps):
            start = time.perf_counter()
            try:
                rank_module.step(run)
            except Exception as error:
                error.add_note(f"in step {run.step + 1}")
                raise
            if rank == 0:
                _show(run, options.steps, time.perf_counter() - start, log)
    ranks.close()


def _warn(why: str, folder: Path) -> None:
    if why:
        print(f"warning: {why}; moec verify PLAN --build {folder}", file=sys.stderr, flush=True)


def _show(run: Run, steps: int, seconds: float, log: TextIO) -> None:
    """One line for the person, one for machines."""
    assert run.result is not None, "the program's step does not end in run.update()"
    loss, norm, tokens = run.result.loss, run.result.gradient_norm, run.job.tokens
    metrics = {"step": run.step, "loss": loss, "grad_norm": norm, "tokens": tokens, "seconds": round(seconds, 6)}
    log.write(json.dumps(metrics) + "\n")
    log.flush()
    line = f"step {run.step}/{steps}  loss {loss:.4f}  {tokens / seconds:,.0f} tokens/s"
    live = sys.stdout.isatty()
    print(f"\r{line}\033[K" if live else line, end="" if live and run.step < steps else "\n", flush=True)


def _open_log(path: str | None) -> TextIO:
    try:
        return open(path or os.devnull, "w", encoding="utf-8")
    except OSError as fault:
        raise DataFault(f"--log {path} cannot be written: {fault.strerror}") from None


def _device(kind: str) -> torch.device:
    if kind == "cpu":
        keep_freed_memory()
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def _report(error: Exception, rank: int, folder: Path, store: Store) -> str:
    """The first error of all ranks in full, later ones in a line.

    What is only the echo of another rank's end is a line too, and nothing where a rank has said why.
    """
    frames = traceback.extract_tb(error.__traceback__)
    first = _is_first_to_tell(store)
    if not isinstance(error, RuntimeError) or not any(Path(frame.filename).name in _TALKING for frame in frames):
        whole = f"rank {rank}:\n{''.join(traceback.format_exception(error))}".rstrip()
        return whole if first else f"rank {rank}: {type(error).__name__}: {error}"
    if not first:
        return ""
    calls = [frame for frame in frames if Path(frame.filename).parent == folder]
    place = f"{Path(calls[-1].filename).name}:{calls[-1].lineno}, {calls[-1].line}" if calls else "the start"
    when = "".join(f"{note}, " for note in (error.__notes__ if hasattr(error, "__notes__") else ()))
    said = str(error).splitlines()[0]
    said = said.partition("] ")[2] if said.startswith("[") else said  # gloo begins with its own source line
    return f"rank {rank}: another rank is gone or late, {when}at {place}: {said.partition('. ')[0]}"


def _is_first_to_tell(store: Store) -> bool:
    """Of all ranks; where they can no longer be asked, yes."""
    try:
        return store.add("moec/told", 1) == 1
    except RuntimeError:
        return True


def _stop_together(message: str) -> None:
    """For what all ranks know at once: the first of each machine says it, before torchrun ends it because of others."""
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if not first:
        time.sleep(0.5)
    _stop(message if first else "", 2)


def _stop(message: str, status: int) -> None:
    """End at once: other threads of the process may hang in a collective that no one will join."""
    if message:
        print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

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
from typing import TextIO

import torch

from moec.runtime import communicator
from moec.runtime.allocator import keep_freed_memory
from moec.runtime.data import DataFault, open_source
from moec.runtime.distributed import connect, find_store
from moec.runtime.handshake import Refusal, shake_hands
from moec.runtime.initial import Initial
from moec.runtime.job import Job, read_job
from moec.runtime.module_values import ModelFault, ModuleValues
from moec.runtime.place import place_of
from moec.runtime.run import NotFinite, NothingValid, Run


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
        _train(folder, job, options, rank)
    except (DataFault, ModelFault, Refusal) as fault:
        _stop(f"rank {rank}: {fault}", 2)
    except NotFinite as fault:
        _stop("" if "another rank" in str(fault) else f"rank {rank}: {fault}", 1)
    except NothingValid as fault:
        _stop(str(fault) if rank == 0 else "", 1)
    except Exception as error:
        _stop(_report(error, rank, folder), 1)


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


def _train(folder: Path, job: Job, options: argparse.Namespace, rank: int) -> None:
    sys.path[:0] = [str(folder), *(job.model.path if job.model else ())]
    rank_module = importlib.import_module(f"rank_{rank:03d}")
    place = place_of(rank_module)
    source = open_source(job, options.data, options.seed)
    log = _open_log(options.log if rank == 0 else None)
    device = _device(options.device)
    timeout = timedelta(seconds=options.timeout)
    store = find_store(rank, job.world_size, timeout)
    facts = {"the program": job.hash, "torch": torch.__version__, "the data": source.fingerprint}
    shake_hands(store, rank, job.world_size, {**facts, "the seed": str(options.seed)}, timeout)
    ranks = connect(store, rank, job.world_size, place.groups, device, timeout)
    communicator.use(ranks)
    values = ModuleValues(job.model, options.seed) if job.model else None
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


def _report(error: Exception, rank: int, folder: Path) -> str:
    """An error of this rank in full; what is only the echo of another's end in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    if not any(Path(frame.filename).name == "distributed.py" for frame in frames):
        return f"rank {rank}:\n{''.join(traceback.format_exception(error))}".rstrip()
    calls = [frame for frame in frames if Path(frame.filename).parent == folder]
    place = f"{Path(calls[-1].filename).name}:{calls[-1].lineno}, {calls[-1].line}" if calls else "the start"
    when = "".join(f"{note}, " for note in (error.__notes__ if hasattr(error, "__notes__") else ()))
    said = str(error).splitlines()[0]
    said = said.partition("] ")[2] if said.startswith("[") else said  # gloo begins with its own source line
    return f"rank {rank}: another rank is gone or late, {when}at {place}: {said.partition('. ')[0]}"


def _stop(message: str, status: int) -> None:
    """End at once: other threads of the process may hang in a collective that no one will join."""
    if message:
        print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

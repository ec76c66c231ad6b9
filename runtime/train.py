"""The loop of one process of a job: what the emitted main.py calls."""

import argparse
import importlib
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from socket import gethostname

import torch
from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

import moec
from moec.runtime import communicator
from moec.runtime.allocator import keep_freed_memory
from moec.runtime.certificate import Local, mixed, warning
from moec.runtime.data import DataFault, open_source
from moec.runtime.distributed import connect, find_store
from moec.runtime.ending import report, stop, stop_together
from moec.runtime.handshake import Refusal, shake_hands
from moec.runtime.initial import Initial
from moec.runtime.job import Job, read_job
from moec.runtime.launch import rank_name
from moec.runtime.module_values import ModelFault, ModuleValues
from moec.runtime.options import parse_options
from moec.runtime.place import place_of
from moec.runtime.progress import open_log, show
from moec.runtime.run import NotFinite, NothingValid, Run


def main(folder: str | Path, arguments: list[str] | None = None) -> None:
    """Train the job in `folder` as the rank that the environment names. Ends the process if that fails."""
    folder = Path(folder).resolve()
    job = read_job(folder / "plan.json")
    options = parse_options(job, arguments)
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world != job.world_size:
        command = f"torchrun --nproc-per-node {job.world_size} {folder / 'main.py'}"
        stop(
            f"{job.name} is a job of {job.world_size} processes, and this is {world}: {command}" if rank == 0 else "", 2
        )
    try:
        store = find_store(rank, world, timedelta(seconds=options.timeout))
    except RuntimeError as fault:
        stop(f"rank {rank}: {fault}", 1)
        return
    try:
        _train(folder, job, options, rank, store)
    except (DataFault, ModelFault, Refusal) as fault:
        stop_together(str(fault))
    except NotFinite as fault:
        stop("" if "another rank" in str(fault) else f"rank {rank}: {fault}", 1)
    except NothingValid as fault:
        stop(str(fault) if rank == 0 else "", 1)
    except Exception as error:
        stop(report(error, rank, folder, store), 1)


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
        log = open_log(options.log if rank == 0 else None)
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
                show(run, options.steps, time.perf_counter() - start, log)
    ranks.close()


def _warn(why: str, folder: Path) -> None:
    if why:
        print(f"warning: {why}; moec verify PLAN --build {folder}", file=sys.stderr, flush=True)


def _device(kind: str) -> torch.device:
    if kind == "cpu":
        keep_freed_memory()
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device

"""The loop of one process of a job: what the emitted main.py calls."""

import argparse
import importlib
import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from socket import gethostname

import torch
from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

import moec
from moec.checkpoint.damage import Damage
from moec.runtime import communicator
from moec.runtime.allocator import keep_freed_memory
from moec.runtime.attempt import past_of, set_begun
from moec.runtime.certificate import Local, mixed, warning
from moec.runtime.checkpoint.notes import NotSaved
from moec.runtime.checkpoint.restore import restore_together
from moec.runtime.checkpoint.resume import said
from moec.runtime.checkpoint.saver import Saver, Saving
from moec.runtime.data import DataFault
from moec.runtime.deterministic import make_deterministic
from moec.runtime.distributed import another_connection, connect, find_store
from moec.runtime.ending import conclude, refuse, remedy, stop, stop_together
from moec.runtime.evaluate import held_out_loss
from moec.runtime.guard import Guard
from moec.runtime.handshake import Refusal, shake_hands
from moec.runtime.job import Job, JobFault, read_job
from moec.runtime.launch import rank_name
from moec.runtime.module_values import ModelFault
from moec.runtime.options import parse_options
from moec.runtime.place import place_of
from moec.runtime.prepared import Prepared
from moec.runtime.recorder import Recorder
from moec.runtime.run import NothingValid, Run
from moec.runtime.watch import Watch

_AFTER_THE_WATCH = timedelta(seconds=30)  # a call gives up, if the watch has found nothing


def main(folder: str | Path, arguments: list[str] | None = None) -> None:
    """Train the job in `folder` as the rank that the environment names. Ends the process if that fails."""
    folder = Path(folder).resolve()
    try:
        job = read_job(folder / "plan.json")
    except JobFault as fault:
        stop_together(str(fault))
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
    watch = Watch(another_connection(store), rank, world, folder, options.timeout)
    watch.start(lambda: remedy(options.save))
    try:
        _train(folder, job, options, rank, store, watch)
    except (Damage, DataFault, ModelFault, Refusal) as fault:
        refuse(fault, watch)
    except (NothingValid, NotSaved) as fault:
        watch.leave()
        stop(str(fault) if rank == 0 else "", 1)
    except (Exception, SystemExit) as error:
        conclude(error, rank, folder, watch)
    stop("", 0)  # threads of torch that are not done would abort an interpreter that ends by itself


def _train(folder: Path, job: Job, options: argparse.Namespace, rank: int, store: Store, watch: Watch) -> None:
    sys.path[:0] = [str(folder), *(job.model.path if job.model else ())]
    name = rank_name(rank, job.world_size)
    program = importlib.import_module(name)
    place = place_of(program)
    watch.knows(program, place.alike)
    if options.deterministic:
        make_deterministic()
    device = _device(options.device)
    timeout = timedelta(seconds=options.timeout)
    prepared = _agree(folder, job, options, rank, Local.read(folder, f"{name}.py"), store)
    watch.meet()
    ranks = connect(store, rank, job.world_size, place.groups, device, timeout + _AFTER_THE_WATCH)
    communicator.use(ranks)
    run = Run(program, job, prepared.values, prepared.data, device)
    if prepared.checkpoint:
        restore_together(run, prepared.checkpoint, store, timeout)
        if rank == 0:
            print(said(prepared.checkpoint, prepared.data.fingerprint, options.steps), flush=True)
    saver = _saver(folder, options, run, store, prepared) if options.save else None
    recorder = Recorder(prepared.recording, run, ranks)
    guard = Guard(run, program, store, watch, options.check_copies)
    watch.follow(run, ranks, options.steps)
    ahead = run.read_ahead()
    while run.step < options.steps and not run.stopping:
        recorder.begin()
        guard.step()
        recorder.end()
        guard.look()
        if prepared.evaluation and prepared.evaluation.due(run.step) and not run.stopping:
            recorder.held_out(held_out_loss(program, run, prepared.evaluation))
        if saver:
            saver.after_step()
    ahead.close()
    if saver:
        saver.finish()
    recorder.finish(saver.summary if saver else [])
    if run.stopping:
        stop("", watch.end(watch.terminated(f"ended by SIGTERM after step {run.step}")))
    watch.close()
    ranks.close()


def _agree(folder: Path, job: Job, options: argparse.Namespace, rank: int, local: Local, store: Store) -> Prepared:
    """What this rank begins with, once all have come and begin with the same. Raises Refusal, on all of them."""
    prepared, fault = None, None
    try:
        prepared = Prepared.read(job, options, rank, local, past_of(store))
    except (Damage, DataFault, ModelFault) as found:
        fault = found
    facts = prepared.facts if prepared else {}
    timeout = timedelta(seconds=options.timeout)
    cards = shake_hands(store, rank, job.world_size, gethostname(), facts, local.card, str(fault or ""), timeout)
    assert prepared, "a fault on any rank is a refusal on all"
    refused = mixed(cards)
    doubt = warning(folder, local, cards) if refused or rank == 0 else ""
    if doubt and refused:
        raise Refusal(refused)
    if doubt:
        print(f"warning: {doubt}; moec verify PLAN --build {folder}", file=sys.stderr, flush=True)
    set_begun(store)
    return prepared


def _saver(folder: Path, options: argparse.Namespace, run: Run, store: Store, prepared: Prepared) -> Saver:
    versions = {"moec": moec.__version__, "torch": torch.__version__}
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    data = prepared.data.fingerprint
    saving = Saving(
        Path(options.save),
        options.every,
        options.keep,
        prepared.run,
        prepared.seed,
        data,
        versions,
        plan,
        resumed=prepared.checkpoint is not None,
        timeout=options.timeout,
    )
    return Saver(saving, run, another_connection(store), gethostname())


def _device(kind: str) -> torch.device:
    if kind == "cpu":
        keep_freed_memory()
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device

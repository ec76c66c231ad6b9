"""Puts the state of a checkpoint into a run, under whatever mesh the run has."""

from collections.abc import Sequence
from datetime import timedelta
from math import prod
from socket import gethostname

import torch
from torch import Tensor

from moec.checkpoint.damage import Damage
from moec.checkpoint.plain_json import printable
from moec.runtime.checkpoint.pieces import pieces_of
from moec.runtime.checkpoint.read import Checkpoint
from moec.runtime.handshake import shake_hands
from moec.runtime.job import Job
from moec.runtime.run import Run
from moec.runtime.shard import Where
from moec.runtime.store import Store
from moec.runtime.words import some


def unset(name: str, shape: Sequence[int], init: str, where: Where) -> Tensor:
    """Initial values of weights that a checkpoint is about to give."""
    return torch.zeros(()).expand([part.stop - part.start for part in where])


def check_model(job: Job, checkpoint: Checkpoint) -> None:
    """Raise Damage, with all that differs, unless the checkpoint is of the job's model."""
    expected = _expected(job)
    found = {key: entry.shape for key, entry in checkpoint.manifest.tensors.items()}
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys())
    other = [key for key in expected if key in found and found[key] != expected[key]]
    lines = [
        *some("the checkpoint lacks", [f"{key} {list(expected[key])}" for key in missing]),
        *some("the model has no", [f"{key} {list(found[key])}" for key in extra]),
        *some("of another shape", [f"{key} {list(found[key])}, not {list(expected[key])}" for key in other]),
        *some("of other experts", _other_experts(job, checkpoint)),
    ]
    if lines:
        raise Damage("\n".join([f"{checkpoint.folder} is of another model than {job.name}", *lines]))


def restore(run: Run, checkpoint: Checkpoint) -> None:
    """Weights, moments, and how far the run had come. Each rank reads what it holds, and nothing else."""
    for piece in pieces_of(run):
        piece.value.detach().copy_(checkpoint.read(piece.key, piece.box))
    progress = checkpoint.manifest.progress
    run.optimizer.restored(progress.updates)
    run.expert_load.restore(progress.experts)
    run.step, run.cursor = progress.step, progress.cursor


def restore_together(run: Run, checkpoint: Checkpoint, board: Store, timeout: timedelta) -> None:
    """The same on all ranks of a job: all go on if every one of them could read its part. Raises Refusal or Damage."""
    damage = None
    try:
        restore(run, checkpoint)
    except Damage as found:
        damage = found
    checkpoint.files.close()
    rank, fault = run.place.rank, str(damage or "")
    shake_hands(board, rank, run.job.world_size, gethostname(), {}, str(rank), fault, timeout, "moec/restored")
    if damage:
        raise damage


def _other_experts(job: Job, checkpoint: Checkpoint) -> list[str]:
    """Routers for which the checkpoint counts other experts than the job has."""
    counted = {name: len(counts) for name, counts in checkpoint.manifest.progress.experts.items()}
    own = {router.name: router.experts for router in job.routers}
    names = sorted(name for name in own.keys() | counted.keys() if own.get(name) != counted.get(name))
    return [
        f"{printable(name)} has counts of {counted.get(name, 0)}, and the model {own.get(name, 0)}" for name in names
    ]


def _expected(job: Job) -> dict[str, tuple[int, ...]]:
    """The tensors of the state of a job, but for empty ones."""
    found = {}
    for name, weight in job.weights.items():
        if prod(weight.shape) > 0:
            for part in ("weight", "mean", "square") if weight.trainable else ("weight",):
                found[f"{part}/{name}"] = weight.shape
    return found

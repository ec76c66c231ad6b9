"""Checkpoints by means that share nothing with moec's own: the safetensors library, json, and numpy."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy
from safetensors.numpy import load_file

from moec.checkpoint.folders import commit, fresh, latest
from moec.checkpoint.manifest import manifest_text
from moec.runtime.checkpoint.parts import joined, write_part
from moec.runtime.checkpoint.pieces import pieces_of, progress_of
from moec.runtime.checkpoint.read import Checkpoint
from moec.runtime.checkpoint.restore import restore
from moec.runtime.checkpoint.snapshot import Snapshot


@dataclass
class State:
    """Whole tensors by key, and how often each element was written."""

    tensors: dict
    times: dict


def read_plainly(folder):
    """The state that a step's folder holds, by the names in its files alone."""
    tensors, times = {}, {}
    shapes = {
        key: entry["shape"] for key, entry in json.loads((folder / "manifest.json").read_text())["tensors"].items()
    }
    for path in sorted(folder.glob("*.safetensors")):
        for name, part in load_file(path).items():
            key, _, box = name.partition(" ")
            where = tuple(slice(*map(int, span.split(":"))) for span in box.strip("[]").split(",") if span)
            if key not in tensors:
                tensors[key] = numpy.full(shapes[key], numpy.nan, part.dtype)
                times[key] = numpy.zeros(shapes[key], int)
            tensors[key][where] = part
            times[key][where] += 1
    return State(tensors, times)


def save(made, runs, folder: Path) -> Path:
    """What all ranks of a job in this process hold, as a checkpoint."""
    step = fresh(folder, runs[0].step)
    parts = []
    for run in runs:
        snapshot = Snapshot(pieces_of(run))
        snapshot.take()
        parts.append(write_part(snapshot, run.place.rank, step))
    progress = progress_of(runs[0], 7, "this file")
    plan = json.loads((made.folder / "plan.json").read_text())
    commit(step, manifest_text(joined(parts, progress, {"moec": "0"}, plan)))
    return step


def trained(made, steps, start: Path | None = None):
    """Runs of all ranks after some steps, from the beginning or from a checkpoint, with their losses."""

    def program(rank, run):
        if start is not None:
            with Checkpoint.open(latest(start)) as checkpoint:
                restore(run, checkpoint)
        losses = []
        for _ in range(steps):
            rank.step(run)
            losses.append(run.result.loss)
        return run, losses

    results = made.simulate(program)
    return [run for run, _ in results], results[0][1]

"""What a rank reads before it meets the others."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

import moec
from moec.runtime.attempt import Past
from moec.runtime.certificate import Local
from moec.runtime.checkpoint.read import Checkpoint
from moec.runtime.checkpoint.restore import unset
from moec.runtime.checkpoint.resume import resumed, seed_of
from moec.runtime.data import Source, Wanted, open_data
from moec.runtime.evaluate import Evaluation
from moec.runtime.given_files import fingerprint
from moec.runtime.given_weights import initial_values
from moec.runtime.job import Job
from moec.runtime.recorder import Recording
from moec.runtime.weights import Values


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a run begins with, but for its ranks."""

    checkpoint: Checkpoint | None  # which it goes on from
    seed: int
    data: Source
    evaluation: Evaluation | None
    values: Values  # of the weights; a checkpoint sets them later
    recording: Recording
    run: str  # an id, the same after a restart
    facts: Mapping[str, str]  # equal on all ranks, or the job does not begin

    @staticmethod
    def read(job: Job, options: argparse.Namespace, rank: int, program: Local, past: Past) -> "Prepared":
        """Raises Damage, DataFault or ModelFault for what cannot be used."""
        checkpoint = resumed(job, options.resume, options.save, past)
        seed = seed_of(options.seed, job.training.seed, checkpoint)
        data = open_data(job, Wanted.of(options), seed)
        evaluation = Evaluation.of(options, data.held_out, job.batch) if data.held_out else None
        values = unset if checkpoint else initial_values(job, seed)
        recording = Recording.of(options, rank)
        recording.check(past.begun or checkpoint is not None)
        facts = {
            "the program": program.digest,
            "moec": moec.__version__,
            "torch": torch.__version__,
            "the seed": str(seed),
            "--deterministic": str(options.deterministic),
            "the data": data.training.fingerprint,
            "the evaluation": str(evaluation),
            "the initial weights": fingerprint(Path(job.initial)) if job.initial and not checkpoint else "drawn",
            "the checkpoint": f"{checkpoint.folder.name} {checkpoint.manifest.digest}" if checkpoint else "none",
        }
        return Prepared(checkpoint, seed, data.training, evaluation, values, recording, past.run, facts)

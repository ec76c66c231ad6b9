"""plan.json as the runtime reads it: the job that a folder of rank programs is."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moec.runtime.module_values import Model
from moec.runtime.optimizer import Training


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that every sample has. Floats are normal, ints lie below a bound, where data is made up."""

    name: str
    kind: Literal["tokens", "labels", "float", "int"]
    shape: tuple[int, ...]  # of one sample
    below: int | None


@dataclass(frozen=True, slots=True)
class Job:
    """What all ranks of a plan have in common."""

    name: str
    world_size: int
    batch: int  # samples of a step, over all ranks and micro-batches
    accumulate: int  # micro-batches of a step
    training: Training
    inputs: tuple[Input, ...]
    loss: Literal["sum", "mean"]  # of a micro-batch: over its valid targets, or already divided by their number
    data: str | None  # "package.module:name" of an indexable dataset
    model: Model | None = None  # where the plan imports one; its folders are for the data too

    @property
    def tokens(self) -> int:
        """Tokens that a step reads; of a model that reads none, its samples."""
        labels = next((given for given in self.inputs if given.kind == "labels"), None)
        return self.batch * (labels.shape[0] if labels else 1)


def read_job(path: Path) -> Job:
    return job_of(path.read_text(encoding="utf-8"), path.parent)


def job_of(text: str, folder: Path) -> Job:
    """The job that the text of a plan.json in a folder is."""
    plan = json.loads(text)
    inputs = [
        Input(name, given["kind"], tuple(given["shape"]), given["below"]) for name, given in plan["inputs"].items()
    ]
    train = plan["train"]
    training = Training(
        lr=train["lr"],
        beta1=train["beta1"],
        beta2=train["beta2"],
        eps=train["eps"],
        weight_decay=train["weight_decay"],
        clip=train["clip"],
        precision=train["precision"],
        seed=train["seed"],
    )
    schedule, model = plan["schedule"], plan["model"]
    if model is not None:
        places = tuple([str(folder / place) for place in model["path"]])
        model = Model(model["target"], model["arguments"], places)
    return Job(
        plan["name"],
        plan["world_size"],
        schedule["batch"],
        schedule["accumulate"],
        training,
        tuple(inputs),
        plan["loss"],
        plan["data"],
        model,
    )

"""plan.json as the runtime reads it: the job that a folder of rank programs is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from moec.runtime.expert_load import Router
from moec.runtime.learning_rate import LearningRate
from moec.runtime.module_values import Model
from moec.runtime.optimizer import Training
from moec.runtime.words import error_text


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that every sample has. Floats are normal, ints lie below a bound, where data is made up."""

    name: str
    kind: Literal["tokens", "labels", "float", "int"]
    shape: tuple[int, ...]  # of one sample
    below: int | None


@dataclass(frozen=True, slots=True)
class Stated:
    """A weight or buffer of the model, as all ranks know it."""

    shape: tuple[int, ...]
    stages: tuple[int, ...]  # that have it
    trainable: bool
    saved: bool = True  # is it in the state_dict of the model?
    also: tuple[str, ...] = ()  # other names that the model has for it


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
    weights: Mapping[str, Stated] = field(default_factory=dict)  # by full name
    initial: str | None = None  # a file of weights to start from, or a folder of them
    routers: tuple[Router, ...] = ()  # in the order of the model

    @property
    def tokens(self) -> int:
        """Tokens that a step reads; of a model that reads none, its samples."""
        labels = next((given for given in self.inputs if given.kind == "labels"), None)
        return self.batch * (labels.shape[0] if labels else 1)


class JobFault(Exception):
    """A plan.json that is none; the message is one line for the user."""


def read_job(path: Path) -> Job:
    """Raises JobFault."""
    again = f"moec compile PLAN -o {path.parent} makes it anew"
    try:
        return job_of(path.read_text(encoding="utf-8"), path.parent)
    except OSError as fault:
        raise JobFault(f"{path} cannot be read: {fault.strerror}: {again}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise JobFault(f"{path} is damaged, or of another version of moec ({error_text(fault)}): {again}") from None


def job_of(text: str, folder: Path) -> Job:
    """The job that the text of a plan.json in a folder is."""
    plan = json.loads(text)
    inputs = [
        Input(name, given["kind"], tuple(given["shape"]), given["below"]) for name, given in plan["inputs"].items()
    ]
    train = plan["train"]
    training = Training(
        rate=LearningRate(train["lr"], train["warmup"], train["decay"], train["steps"], train["final_lr"]),
        beta1=train["beta1"],
        beta2=train["beta2"],
        eps=train["eps"],
        weight_decay=train["weight_decay"],
        clip=train["clip"],
        not_finite=train["not_finite"],
        precision=train["precision"],
        seed=train["seed"],
    )
    weights = {
        name: Stated(tuple(w["shape"]), tuple(w["stages"]), w["trainable"], w["saved"], tuple(w["also"]))
        for name, w in plan["weights"].items()
    }
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
        weights,
        str(folder / plan["initial"]) if plan["initial"] is not None else None,
        tuple([Router(**router) for router in plan["routers"]]),
    )

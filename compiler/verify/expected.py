"""Trains the unsharded model as the rank programs are trained, under plain autograd."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import translate
from re import fullmatch

import torch
from torch import Tensor

from moec.compiler.reference.decoder import Decoder
from moec.compiler.reference.experts import Routing
from moec.compiler.reference.precise import precise
from moec.compiler.reference.train import Hyper, train
from moec.compiler.verify.decisions import deciding
from moec.compiler.verify.reference_model import reference_model
from moec.compiler.verify.run_ranks import STEPS, Setting
from moec.compiler.verify.shrink import Trial


@dataclass(frozen=True, slots=True)
class Expected:
    """What all ranks together must come to, as Outcome has it of one."""

    losses: list[float]
    gradients: list[dict[str, Tensor]]
    weights: dict[str, Tensor]
    decisions: list[Routing]


def expected(trial: Trial, setting: Setting) -> Expected:
    """In float64, on the samples and from the initial values of the setting."""
    model = reference_model(trial, setting.values)
    job = setting.job
    size = job.batch // job.accumulate

    def microbatch(step: int, i: int) -> dict[str, Tensor]:
        first = step * job.batch + i * size
        samples = [setting.source.sample(first + n) for n in range(size)]
        return {given.name: _precise(torch.stack([sample[given.name] for sample in samples])) for given in job.inputs}

    batches = [[_as_arguments(model, microbatch(step, i)) for i in range(job.accumulate)] for step in range(STEPS)]
    said = trial.program.plan.train
    hyper = Hyper(
        said.lr,
        said.beta1,
        said.beta2,
        said.eps,
        said.weight_decay,
        said.clip,
        said.warmup,
        said.decay,
        said.steps,
        said.final_lr,
    )
    dims = {name: weight.dim() for name, weight in model.named_parameters()}
    decisions: list[Routing] = []
    with precise(), deciding(decisions):
        trained = train(model, batches, hyper, lambda name: _decays(name, dims[name], said.decayed, said.undecayed))
    if isinstance(model, Decoder):  # it routes without moec's functions
        decisions = [routing for call in model.routing for routing in call.values()]
    losses = [step.loss for step in trained.steps]
    return Expected(losses, [step.gradients for step in trained.steps], trained.weights, decisions)


def _decays(name: str, dims: int, decayed: Sequence[str], undecayed: Sequence[str]) -> bool:
    """By custom matrices do, norms and biases do not; the plan's patterns come after that, the undecayed ones last."""
    found = dims > 1
    for patterns, answer in ((decayed, True), (undecayed, False)):
        if any(fullmatch(translate(pattern), name) for pattern in patterns):
            found = answer
    return found


def _as_arguments(model: torch.nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """By the names of the forward's parameters, in the order of the plan's inputs."""
    names = list(inspect.signature(model.forward).parameters)
    return dict(zip(names, given.values(), strict=False))


def _precise(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x

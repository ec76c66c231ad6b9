"""Train any module by plain autograd on one device, and say what every step came to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moec.compiler.reference.learning_rate import learning_rate

MicroBatch = Mapping[str, Tensor]
"""The arguments of one call of the model, by name."""


@dataclass(frozen=True, slots=True)
class Hyper:
    """Settings of AdamW, of its learning rate and of clipping; `clip` is the largest norm of all gradients together."""

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = None
    warmup: int = 0
    decay: str = "constant"
    steps: int | None = None
    final_lr: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: loss, and gradients by weight's name as they were before clipping, with their norm."""

    loss: float
    gradients: dict[str, Tensor]
    norm: float


@dataclass(frozen=True, slots=True)
class Trained:
    steps: tuple[Step, ...]
    weights: dict[str, Tensor]
    """By name, after the last step."""


def train(
    model: nn.Module, batches: Iterable[Sequence[MicroBatch]], hyper: Hyper, decays: Callable[[str], bool]
) -> Trained:
    """Take one step per element of `batches`, which is that step's micro-batches; trains `model` in place.

    The model returns a loss, which is a mean and counts 1/m in each of m micro-batches; or a pair (sum, count), which
    are added up over the step before they are divided. `decays` says by name which weights decay. A weight that a step
    does not reach has gradient zero.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = _optimizer(weights, hyper, decays)
    steps = []
    for n, microbatches in enumerate(batches, 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(n, hyper.lr, hyper.warmup, hyper.decay, hyper.steps, hyper.final_lr)
        steps.append(_step(model, weights, optimizer, microbatches, hyper.clip))
    return Trained(tuple(steps), {name: weight.detach().clone() for name, weight in weights.items()})


def _step(
    model: nn.Module,
    weights: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    microbatches: Sequence[MicroBatch],
    clip: float | None,
) -> Step:
    optimizer.zero_grad()
    loss = _loss(model, microbatches)
    for weight in weights.values():
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    gradients = {name: weight.grad.clone() for name, weight in weights.items() if weight.grad is not None}
    norm = torch.nn.utils.get_total_norm(gradients.values())
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(weights.values(), clip)
    optimizer.step()
    return Step(loss, gradients, float(norm))


def _loss(model: nn.Module, microbatches: Sequence[MicroBatch]) -> float:
    """Of the whole step; leaves its gradients in the weights.

    A count is known only after its forward, so gradients of sums are divided when all micro-batches have run.
    """
    total, count = 0.0, 0
    for microbatch in microbatches:
        result = model(**microbatch)
        loss, valid = result if isinstance(result, tuple) else (result, 1)
        loss.backward()
        total, count = total + float(loss.detach()), count + int(valid)
    for weight in model.parameters():
        if weight.grad is not None:
            weight.grad /= count
    return total / count


def _optimizer(weights: dict[str, nn.Parameter], hyper: Hyper, decays: Callable[[str], bool]) -> torch.optim.Optimizer:
    groups = [
        {"params": [weight for name, weight in weights.items() if decays(name)], "weight_decay": hyper.weight_decay},
        {"params": [weight for name, weight in weights.items() if not decays(name)], "weight_decay": 0.0},
    ]
    betas = (hyper.beta1, hyper.beta2)
    return torch.optim.AdamW([group for group in groups if group["params"]], hyper.lr, betas, hyper.eps)

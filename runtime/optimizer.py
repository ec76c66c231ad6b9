"""AdamW with decoupled weight decay, on the flat buffers of a rank, and the norm that clips its gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from moec.runtime.buffers import Block
from moec.runtime.weights import Weights

_PIECE = 1 << 14  # elements whose squares are summed in their own precision


@dataclass(frozen=True, slots=True)
class Training:
    """What the plan's `train` block says."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    clip: float | None  # the largest norm of all gradients together
    precision: str  # bf16, fp32 or fp64
    seed: int

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and activations."""
        return {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}[self.precision]


@dataclass(frozen=True, slots=True)
class _State:
    """One block's weights in the precision of its gradients, with its moments."""

    block: Block
    master: Tensor
    mean: Tensor
    square: Tensor
    steps: Tensor


class AdamW:
    """The optimizer of one rank's shards (Loshchilov, Hutter: Decoupled weight decay regularization, 2019).

    Under bf16 it keeps and updates weights in float32, and rounds them into those that the regions read.
    """

    def __init__(self, weights: Weights, training: Training) -> None:
        self._training = training
        self._states = tuple([_state(block) for family in weights.families for block in family.blocks])

    def squared_norm(self) -> tuple[Tensor, Tensor]:
        """Of the gradients that this rank owns, and how many blocks of all that it holds are not finite; float64.

        Summed over the ranks, every logical element counts once.
        """
        if not self._states:
            return torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        gradients = [state.block.gradients for state in self._states]
        squares = torch.stack([_squared_norm(x) for x in gradients])
        owned = torch.tensor([state.block.owned for state in self._states], device=squares.device)
        return squares.where(owned, 0.0).sum(), squares.isfinite().logical_not().sum().double()

    def step(self, norm: float) -> None:
        """One update; `norm` is that of the gradients of all ranks, by which they are clipped."""
        factor = clip_factor(norm, self._training.clip)
        for state in self._states:
            if factor < 1.0:
                state.block.gradients.mul_(factor)
            self._update(state)

    def _update(self, state: _State) -> None:
        training, block = self._training, state.block
        adamw(
            [state.master],
            [block.gradients],
            [state.mean],
            [state.square],
            [],
            [state.steps],
            fused=True,
            lr=training.lr,
            beta1=training.beta1,
            beta2=training.beta2,
            weight_decay=training.weight_decay if block.decay else 0.0,
            eps=training.eps,
            amsgrad=False,
            maximize=False,
        )
        if state.master is not block.values:
            block.values.copy_(state.master)


def _squared_norm(x: Tensor) -> Tensor:
    """float64; within short pieces in the precision of x, which is five times faster and loses nothing that shows."""
    whole = len(x) // _PIECE * _PIECE
    pieces = torch.linalg.vector_norm(x[:whole].view(-1, _PIECE), dim=1).double().square().sum()
    return pieces + torch.linalg.vector_norm(x[whole:]).double().square()


def clip_factor(norm: float, clip: float | None) -> float:
    """What gradients of this norm are multiplied by; as in torch.nn.utils.clip_grad_norm_."""
    return 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))


def _state(block: Block) -> _State:
    dtype, device = block.gradients.dtype, block.gradients.device
    master = block.values if block.values.dtype is dtype else block.values.to(dtype)
    zeros = torch.zeros_like(block.gradients)
    return _State(block, master, zeros, zeros.clone(), torch.zeros((), dtype=torch.float32, device=device))

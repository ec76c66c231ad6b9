"""AdamW with decoupled weight decay, on the flat buffers of a rank, and the norm that clips its gradients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from moec.runtime.buffers import Block
from moec.runtime.learning_rate import LearningRate
from moec.runtime.shard import Shard
from moec.runtime.weights import Values, Weights

_PIECE = 1 << 14  # elements whose squares are summed in their own precision


@dataclass(frozen=True, slots=True)
class Training:
    """What the plan's `train` block says."""

    rate: LearningRate
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    clip: float | None  # the largest norm of all gradients together
    not_finite: Literal["stop", "skip"]  # what a step does whose loss or gradient is not finite
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
        self._weights, self._training = weights, training
        self._states = tuple([_state(block) for family in weights.families for block in family.blocks])
        decays = [training.weight_decay if state.block.decay else 0.0 for state in self._states]
        self._by_decay = [
            (decay, [state for state, its in zip(self._states, decays, strict=True) if its == decay])
            for decay in dict.fromkeys(decays)
        ]

    def initialise(self, initial: Values) -> None:
        """Set what every weight is before the first step, unrounded where it is updated. Padding stays zero."""
        for shard in self._weights.shards.values():
            values = initial(shard.name, shard.weight.shape, shard.weight.init, shard.kept)
            self.parts(shard)["weight"].detach()[shard.inside].copy_(values)
        self.restored(0)

    @property
    def nbytes(self) -> int:
        """Bytes of its state: moments, and weights in their own precision where the regions read them in another."""
        own = [state.master.nbytes for state in self._states if state.master is not state.block.values]
        return sum(own) + sum(state.mean.nbytes + state.square.nbytes for state in self._states)

    def parts(self, shard: Shard) -> dict[str, Tensor]:
        """What it keeps of a shard, as views: its weight as it is updated, and both moments if it is trained."""
        if not shard.weight.trainable:
            return {"weight": shard.value}
        state, start = self._place(shard)
        kept = {"weight": state.master, "mean": state.mean, "square": state.square}
        return {part: x[start : start + shard.value.numel()].view(shard.value.shape) for part, x in kept.items()}

    @property
    def updates(self) -> int:
        """How many there were."""
        return int(self._states[0].steps) if self._states else 0

    def restored(self, updates: int) -> None:
        """All parts have been written from outside, and there were so many updates."""
        for state in self._states:
            state.steps.fill_(updates)
            if state.master is not state.block.values:
                state.block.values.copy_(state.master)

    def squared_norm(self) -> Tensor:
        """Of the gradients that this rank owns, float64. Summed over the ranks, every logical element counts once.

        Not a finite number if any gradient here is not, also one that another rank owns.
        """
        mine = [norm for state in self._states if state.block.owned for norm in _norms(state.block.gradients)]
        copies = [norm for state in self._states if not state.block.owned for norm in _norms(state.block.gradients)]
        square = _sum_of_squares(mine)
        return square + 0 * _sum_of_squares(copies) if copies else square

    def step(self, norm: float, rate: float) -> None:
        """One update at a learning rate; `norm` is that of the gradients of all ranks, by which they are clipped."""
        factor = clip_factor(norm, self._training.clip)
        if factor < 1.0:
            for state in self._states:
                state.block.gradients.mul_(factor)
        for decay, states in self._by_decay:
            self._update(states, decay, rate)

    def _place(self, shard: Shard) -> tuple[_State, int]:
        """The state that has a shard, and the element of it at which the shard begins."""
        storage = shard.value.untyped_storage()._cdata
        for state in self._states:
            values = state.block.values
            start = int(shard.value.storage_offset() - values.storage_offset())
            if values.untyped_storage()._cdata == storage and 0 <= start < len(values):
                return state, start
        raise KeyError(shard.name)

    def _update(self, states: Sequence[_State], decay: float, rate: float) -> None:
        training = self._training
        adamw(
            [state.master for state in states],
            [state.block.gradients for state in states],
            [state.mean for state in states],
            [state.square for state in states],
            [],
            [state.steps for state in states],
            fused=True,
            lr=rate,
            beta1=training.beta1,
            beta2=training.beta2,
            weight_decay=decay,
            eps=training.eps,
            amsgrad=False,
            maximize=False,
        )
        for state in states:
            if state.master is not state.block.values:
                state.block.values.copy_(state.master)


def _norms(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of pieces of x, [n] each: short ones, whose squares x's own precision can sum. That is five times faster."""
    whole = len(x) // _PIECE * _PIECE
    return torch.linalg.vector_norm(x[:whole].view(-1, _PIECE), dim=1), torch.linalg.vector_norm(x[whole:]).view(1)


def _sum_of_squares(norms: list[Tensor]) -> Tensor:
    return torch.cat(norms).double().square().sum() if norms else torch.zeros((), dtype=torch.float64)


def clip_factor(norm: float, clip: float | None) -> float:
    """What gradients of this norm are multiplied by; as in torch.nn.utils.clip_grad_norm_."""
    return 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))


def _state(block: Block) -> _State:
    dtype, device = block.gradients.dtype, block.gradients.device
    master = block.values if block.values.dtype is dtype else block.values.to(dtype)
    zeros = torch.zeros_like(block.gradients)
    return _State(block, master, zeros, zeros.clone(), torch.zeros((), dtype=torch.float32, device=device))

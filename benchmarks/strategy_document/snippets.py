"""The strategy document's code, as it is written there, and what it does with small tensors."""

import torch
from strategy_document.figure import Figure, figures, percent
from torch import Tensor

_HIDDEN, _EXPERTS, _HERE, _TOKENS = 16, 64, 4, 4096
_SAMPLES, _MICRO_BATCHES = 256, 8


def snippets() -> list[Figure]:
    torch.manual_seed(0)
    answered, gradient = _experts()
    stay, returned = _pipeline_order(), _batched_all_to_all(torch.zeros(1), torch.zeros(1))
    return figures(
        snippet_all_to_all=str(returned),
        snippet_answered=percent(answered),
        snippet_gate_gradient=str(gradient),
        snippet_order=f"{stay} of {_SAMPLES}",
        snippet_linear=percent(_linear_blocks()),
    )


def _batched_all_to_all(hidden_states: Tensor, gate_scores: Tensor) -> None:
    """Batch multiple all-to-all operations for efficiency."""
    pass


def _experts() -> tuple[float, Tensor | None]:
    """Of a rank's tokens, the part that any of its experts answers, and the gradient of the gate.

    The tokens are taken as they are where the document puts what its exchange returns, which is nothing.
    """
    gate = torch.nn.Linear(_HIDDEN, _EXPERTS, bias=False)
    experts = [torch.nn.Linear(_HIDDEN, _HIDDEN, bias=False) for _ in range(_HERE)]
    hidden_states = torch.randn(1, _TOKENS, _HIDDEN)
    gate_scores = gate(hidden_states)
    expert_outputs = []
    for i, expert in enumerate(experts):
        expert_mask = gate_scores.argmax(dim=-1) == i
        if expert_mask.any():
            expert_outputs.append((expert(hidden_states[expert_mask]), expert_mask))
    output = torch.zeros_like(hidden_states)
    for expert_output, mask in expert_outputs:
        output[mask] = expert_output
    output.sum().backward()
    return float((output != 0).any(dim=-1).float().mean()), gate.weight.grad


def _pipeline_order() -> int:
    """Samples that come out of the stage where they went in, if its layers do nothing."""
    hidden_states = torch.arange(_SAMPLES)
    outputs = [hidden_states[i::_MICRO_BATCHES] for i in range(_MICRO_BATCHES)]
    return int((torch.cat(outputs) == hidden_states).sum())


def _linear_blocks() -> float:
    """Of a linear's weight, the part that four ranks hold whose `OptimizedTensorParallelLinear` splits both dims."""
    inputs, outputs, ranks = 64, 64, 4
    return ranks * (inputs // ranks) * (outputs // ranks) / (inputs * outputs)

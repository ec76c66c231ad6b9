"""What frameworks do beside a program that a plan has no word for, by when they learned it."""

from dataclasses import replace

from as_plan import practice
from frameworks import BEFORE_SEQUENCE_PARALLELISM, TRANSFORMER_ENGINE, WEIGH_EARLY, any_of
from published import Run

from moec.compiler.cost.practice import Practice

NO_OVERLAP = ("23e00ed",)
"""SimuMax's runs are stated to overlap nothing of tensor parallelism."""


def practice_of(run: Run) -> Practice:
    """Since 2022 Megatron-LM exchanges gradients of activations beside products, and gathers again what sequence
    parallelism had gathered; since 2021 ranks of a tensor-parallel group share what they send to the next stage."""
    layout, framework = run.layout, run.framework
    late = not any_of((*BEFORE_SEQUENCE_PARALLELISM, *NO_OVERLAP), framework)
    scatters = layout.tp > 1 and layout.pp > 1 and not layout.sequence_parallel and "Megatron" in framework
    return replace(
        practice(run),
        overlapped_products=late,
        spare_gradients=any_of(TRANSFORMER_ENGINE, framework),
        weighs_early=any_of(WEIGH_EARLY, framework),
        gathers_again=layout.sequence_parallel,
        scattered_messages=layout.tp if scatters else 1,
        graphed="Bridge" in framework if run.captured is None else run.captured,
    )

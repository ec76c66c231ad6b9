"""The strategy document's own formulas, worked out, and beside each what its right form gives.

Sizes are the document's: h hidden, f of an expert, s tokens of a sequence. FLOPs count a multiplication and an addition
as two. A causal mask halves the products of attention.
"""

from strategy_document.figure import Figure, figures, gigabytes, milliseconds, percent, teraflops

LAYERS, HIDDEN, EXPERT, EXPERTS, SEQ, BATCH = 16, 1024, 2048, 64, 4096, 256
VOCAB = 32_000  # the document does not say
TP, EP, PP, DP, GPUS = 4, 16, 4, 2, 16
MICRO_BATCHES = 16
TOKENS = BATCH * SEQ
RATE = 400e12 * 0.6  # FLOP/s of a GPU as the document counts on
PEAK = 400e12
LINK = 1.8e12 * 0.8
MEMORY = 64e9
CLAIMED = 30e9
LATENCY = 27e-3
STATE = 18
"""Bytes of a parameter in training: a weight in bf16, and in float32 gradient, master weight and two moments."""

PROJECTIONS = 2 * 4 * HIDDEN**2  # FLOPs of a token: query, key, value and output
SCORES = 2 * SEQ * HIDDEN  # the scores and the sum of values, half of them behind the mask
EXPERT_PRODUCTS = 2 * 2 * HIDDEN * EXPERT  # up and down, of one expert
HEAD = 2 * HIDDEN * VOCAB


def arithmetic() -> list[Figure]:
    return [*_model(), *_memory(), *_compute(), *_latency(), *_communication(), *_throughput(), *_modules()]


def parameters(layers: int = LAYERS, expert: int = EXPERT, matrices: int = 2) -> int:
    """Of the document's dimensions; three matrices where experts are gated."""
    layer = EXPERTS * matrices * HIDDEN * expert + 4 * HIDDEN**2 + HIDDEN * EXPERTS + 2 * HIDDEN
    return layers * layer + 2 * VOCAB * HIDDEN + HIDDEN


def forward_flops(top_k: int = 1) -> int:
    """Of all 256 sequences through all layers and the head."""
    return TOKENS * (LAYERS * (PROJECTIONS + SCORES + top_k * EXPERT_PRODUCTS) + HEAD)


def _model() -> list[Figure]:
    layers = next(n for n in range(1, 1000) if parameters(layers=n) >= CLAIMED)
    expert = next(n for n in range(EXPERT, 10**6) if parameters(expert=n) >= CLAIMED)
    in_experts = LAYERS * EXPERTS * 2 * HIDDEN * EXPERT / parameters()
    return figures(
        parameters_plain=f"{parameters() / 1e9:.2f} billion",
        parameters_gated=f"{parameters(matrices=3) / 1e9:.2f} billion",
        parameters_layers=f"{layers}",
        parameters_expert_hidden=f"{expert:,}",
        parameters_in_experts=percent(in_experts),
    )


def _memory() -> list[Figure]:
    weights = CLAIMED * 2 / (TP * DP)
    activations = TOKENS * HIDDEN * 2 / (TP * PP)
    parts = 7.5 + 1.1 + 1.3 + 1.7
    return figures(
        weights_formula=gigabytes(weights),
        weights_own_mesh=gigabytes(CLAIMED * 2 / (TP * PP * EP)),
        weights_on_16=gigabytes(CLAIMED * 2 / GPUS),
        overhead_formula=gigabytes(weights * 1.15),
        activations_formula=gigabytes(activations),
        activations_factor=f"{1.3e9 / activations:.1f}",
        optimizer_formula=gigabytes(0.3 * 8.6e9),
        optimizer_all_before=gigabytes(0.3 * (7.5 + 1.1 + 1.3) * 1e9),
        optimizer_share_claimed=percent(1.7 / (7.5 + 1.1 + 1.3)),
        optimizer_over_weights=percent((STATE - 2) / 2),
        state_on_16=gigabytes(CLAIMED * STATE / GPUS),
        memory_sum=f"{parts:.1f} GB",
        memory_share=percent(parts * 1e9 / MEMORY),
    )


def _compute() -> list[Figure]:
    attention = TOKENS * HIDDEN**2 * 4 / (RATE * TP)
    expert = TOKENS * HIDDEN * EXPERT * 1.5 / (RATE * EP)
    right = TOKENS * (PROJECTIONS + SCORES) / (RATE * TP)
    right_expert = TOKENS * EXPERT_PRODUCTS / (RATE * EP)
    return figures(
        attention_formula=milliseconds(attention),
        attention_right=milliseconds(right),
        attention_factor=f"{right / attention:.1f}",
        scores_share=percent(SCORES / (PROJECTIONS + SCORES)),
        expert_formula=milliseconds(expert),
        expert_factor=f"{2.1e-3 / expert:.1f}",
        expert_right=milliseconds(right_expert),
        expert_right_initial=milliseconds(2 * right_expert),
        layer_formula=milliseconds(attention + expert),
        layer_right=milliseconds(right + right_expert),
        stage_sum=milliseconds(4 * 6.5e-3),
        stage_right=milliseconds(4 * (right + right_expert)),
    )


def _latency() -> list[Figure]:
    forward, initial = forward_flops(), forward_flops(top_k=2)
    needed = forward / LATENCY / GPUS
    filled = (MICRO_BATCHES + PP - 1) / MICRO_BATCHES
    return figures(
        overhead_26=milliseconds(26e-3 * 1.05),
        all_stages=milliseconds(PP * 26e-3),
        fill_overhead=percent(filled - 1),
        fill_overhead_8=percent((PP - 1) / 8),
        fill_micro_batches=f"{round((PP - 1) / 0.05)}",
        filled_26=milliseconds(filled * 26e-3),
        forward_flops=teraflops(forward),
        peak_needed=f"{needed / 1e12:,.0f} TFLOP/s",
        peak_factor=f"{needed / PEAK:.1f}",
        rate_factor=f"{needed / RATE:.1f}",
        peak_needed_512=f"{forward / LATENCY / (TP * EP * PP * DP) / 1e12:.0f} TFLOP/s",
        forward_at_rate=milliseconds(forward / (GPUS * RATE)),
        forward_at_peak=milliseconds(forward / (GPUS * PEAK)),
        forward_at_rate_initial=milliseconds(initial / (GPUS * RATE)),
    )


def _communication() -> list[Figure]:
    message = TOKENS * HIDDEN * 2
    all_reduce, all_to_all = message / LINK, message / (LINK * 4)
    ring = 2 * (TP - 1) / TP * all_reduce
    layer = 1.3e-3 + 0.3e-3
    return figures(
        all_reduce_formula=milliseconds(all_reduce),
        all_reduce_ring=milliseconds(ring),
        all_reduce_layer=milliseconds(2 * ring),
        all_to_all_formula=milliseconds(all_to_all),
        batched_sum=milliseconds(layer * 0.25),
        overhead_formula_share=percent(0.4e-3 / LATENCY),
        overhead_stage=percent(4 * layer * 0.25 / LATENCY),
        overhead_stage_unbatched=percent(4 * layer / LATENCY),
    )


def _throughput() -> list[Figure]:
    step = 3 * forward_flops() / (GPUS * RATE)
    return figures(
        sequences_of_tokens=f"{38_000 / SEQ:.2f} sequences/s",
        tokens_of_sequences=f"{148 * SEQ:,} tokens/s",
        tokens_a_sequence=f"{38_000 / 148:.1f}",
        four_over_latency=f"{4 / LATENCY:.1f}",
        product_148_256=f"{148 * 256:,}",
        tokens_of_latency=f"{TOKENS / LATENCY / 1e6:.1f} million tokens/s",
        sequences_of_latency=f"{BATCH / LATENCY:,.0f} sequences/s",
        tokens_on_16=f"{TOKENS / step / 1e6:.2f} million tokens/s",
        sequences_on_16=f"{BATCH / step:,.0f} sequences/s",
    )


def _modules() -> list[Figure]:
    return figures(
        batch_product=f"{8 * MICRO_BATCHES * DP}",
        batch_product_initial=f"{32 * 8}",
        experts_per_gpu=f"{EXPERTS // EP}",
        experts_per_gpu_initial=f"{EXPERTS // 8}",
        world_optimized=f"{TP * EP * PP * DP}",
        world_initial=f"{8 * 8 * 2}",
    )

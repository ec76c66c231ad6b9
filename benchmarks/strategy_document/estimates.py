"""What moec estimates of the document's two plans, and of other readings of them."""

from collections.abc import Iterator, Mapping

from strategy_document.describe import described
from strategy_document.figure import Figure, figures, percent, verdict
from strategy_document.search import BOUNDS, SIX
from strategy_document.variants import Traced, traced, under

from moec.compiler.cost import Estimate, decide, read_routing
from moec.compiler.cost.balance import balance_of
from moec.compiler.cost.requirements import decided
from moec.dsl import vary_plan

READINGS = {
    "plan": (),
    "memory_read": ("hardware.memory_bandwidth=1.8 TB/s", "hardware.link_bandwidth=450 GB/s"),
    "one_domain": ("hardware.ranks_per_node=512",),
}
"""Of the optimized plan, what 1.8 TB/s may be: links in a node, the memory's, links between all GPUs."""

SIXTEEN = {
    "sixteen_pp": ("mesh.dp=1", "mesh.ep=4 over tp", "shard.batch=whole"),
    "sixteen_dp": ("mesh.pp=1", "mesh.dp=4", "mesh.ep=16 over dp, tp"),
}
"""The optimized plan on 16 ranks: experts over those of tp, with four stages; over those of dp and tp, with one."""


def estimates() -> Iterator[Figure]:
    initial, optimized = traced("strategy/initial"), traced("strategy/optimized")
    before, after = under(initial), under(optimized)
    yield from _initial(before)
    yield from _optimized(optimized, after)
    yield from _improvement(before, after)


def _initial(found: Estimate) -> Iterator[Figure]:
    yield from described("initial", found)
    talking = found.exposed_communication_seconds / (found.utilization * found.step_seconds)
    yield from figures(
        initial_talk_over_compute=percent(talking),
        verdict_initial_latency=verdict(_near(found.time.latency, 129e-3)),
        verdict_initial_balance=verdict(_near(found.balance.load_balance, 0.75)),
        verdict_initial_memory=verdict(found.memory_bytes < 64e9),
    )


def _optimized(plan: Traced, found: Estimate) -> Iterator[Figure]:
    yield from described("optimized", found)
    yield from _verdicts(found)
    yield from figures(
        optimized_zipf=percent(balance_of(found.program, read_routing("zipf:1", found.program)).load_balance),
        optimized_on_16=f"{16 * found.tokens_per_second / found.world_size:,.0f} tokens/s",
        batching_saves=percent(_saved_by_batching(found)),
    )
    readings = {name: plan.on(found, *settings) for name, settings in READINGS.items()}
    readings |= {name: under(plan, *settings) for name, settings in SIXTEEN.items()}
    for name, reading in readings.items():
        yield from described(name, reading)
    yield from _of_readings(found, readings)


def _improvement(before: Estimate, after: Estimate) -> list[Figure]:
    """The three issues that the document sets out to mend."""
    better = {
        "communication": after.comm_overhead < before.comm_overhead,
        "latency": after.time.latency < before.time.latency,
        "balance": after.balance.load_balance > before.balance.load_balance,
    }
    holds = [name for name, gains in better.items() if gains]
    fails = [name for name, gains in better.items() if not gains]
    parts = [f"{word} of {', '.join(names)}" for word, names in (("holds", holds), ("does not hold", fails)) if names]
    return figures(verdict_improvement="; ".join(parts))


def _verdicts(found: Estimate) -> list[Figure]:
    """Of the document's checklist by the bounds of the plan, and of the six requirements themselves."""
    verdicts = {each.name: verdict(each.passed) for each in decide(found)}
    on_all = verdict(found.tokens_per_second > 38_000, "does not hold")
    sequences = verdict(found.sequences / found.step_seconds > 148)
    six = vary_plan(found.program.plan, BOUNDS)
    assert six is not None, "the six are bounds"
    kept = [(each.name, decided(each, found).passed) for each in six.require if each.name in SIX]
    return [
        *(Figure(f"verdict_{name}", text) for name, text in verdicts.items()),
        *(Figure(f"six_{name}", "yes" if passed else "no") for name, passed in kept),
        *figures(
            verdict_memory_share=verdict(found.memory_bytes < 0.185 * found.machine.memory),
            verdict_end_to_end=verdict(found.time.latency < 30e-3),
            verdict_throughput_words=f"{on_all}, on {found.world_size} GPUs",
            verdict_sequences=f"{sequences}, on {found.world_size} GPUs",
            verdict_load_balance_words=f"{verdicts['load_balance']}, if experts are alike",
        ),
    ]


def _of_readings(found: Estimate, readings: Mapping[str, Estimate]) -> list[Figure]:
    claims = {
        "11.6 GB": any(each.memory_bytes < 11.6e9 for each in readings.values()),
        "1.5 %": any(each.comm_overhead < 0.015 for each in readings.values()),
        "94 %": any(each.utilization > 0.94 for each in readings.values()),
    }
    gain = found.tokens_per_second / readings["sixteen_pp"].tokens_per_second
    kept = ", ".join(claim for claim, holds in claims.items() if holds) or "none"
    return figures(readings_keep=kept, mesh_gain=f"{gain:.1f}")


def _saved_by_batching(found: Estimate) -> float:
    """Of the time in collectives, what is saved if each four start as one: three starts in four, and no byte."""
    passes = [done for stage in found.time.stages for done in (stage.forward, stage.backward)]
    talks = sum(times for done in passes for piece, times in done.pieces if piece.talks)
    return 0.75 * talks * found.machine.collective_latency / sum(done.talking for done in passes)


def _near(value: float, claimed: float) -> bool:
    return abs(value - claimed) <= 0.1 * claimed

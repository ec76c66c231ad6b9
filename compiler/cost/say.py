"""An estimate in words and columns, for a person."""

from collections.abc import Iterator, Sequence

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.memory import Memory
from moec.compiler.cost.requirements import Requirement, parts_of_step
from moec.dsl.schema import SHARES

_CONVENTION = "3 x the forward's products, half of causal attention's, chosen experts only"


def say_estimate(found: Estimate) -> str:
    """All of it, some twenty lines."""
    return "\n".join([*_head(found), "", *_time(found), "", *_memory(found)])


def say_requirements(requirements: Sequence[Requirement]) -> Iterator[str]:
    """A line for each: is it kept, what is it, what was wanted, what is in the way."""
    width = max((len(each.name) for each in requirements), default=0)
    for each in requirements:
        mark = "keeps " if each.passed else "BREAKS"
        value, bound = amount(each.name, each.value), amount(each.name, each.bound)
        line = f"{mark} {each.name:<{width}}  {value:>14}  {each.relation:<2} {bound:<16} {_margin(each):<12}"
        yield f"{line} {each.limit}".rstrip() if not each.passed else line.rstrip()


def amount(name: str, value: float) -> str:
    """A value of a bound in a unit that suits it."""
    if name == "memory":
        return size(value)
    if name in ("latency", "step_time"):
        return seconds(value)
    if name == "throughput":
        return f"{value:,.0f} tokens/s"
    if name in SHARES:
        return share(value)
    return f"{value:,.0f}"


def size(value: float) -> str:
    for scale, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value:.0f} B"


def seconds(value: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(value) >= 0.9995 * scale:  # 999.7 us are 1 ms
            return f"{_three(value / scale)} {unit}"
    return f"{value:.1e} s" if value else "0 s"


def share(value: float) -> str:
    """A part of 1 in percent, with the digits that tell it from none and from all."""
    percent = 100 * value
    digits = next((n for n in (1, 2, 3) if round(percent, n) not in (0, 100) or percent in (0, 100)), 4)
    return f"{percent:.{digits}f} %"


def _three(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def rate(value: float) -> str:
    """FLOP/s."""
    for scale, unit in ((1e12, "TFLOP/s"), (1e9, "GFLOP/s")):
        if value >= scale:
            return f"{value / scale:,.4g} {unit}"
    return f"{value:,.0f} FLOP/s"


def large(number: float) -> str:
    for scale, word in ((1e9, "billion"), (1e6, "million")):
        if number >= scale:
            return f"{number / scale:.2f} {word}"
    return f"{number:,.0f}"


def _margin(each: Requirement) -> str:
    return f"{'+' if each.passed else '-'}{100 * abs(each.margin):.0f} %"


def _head(found: Estimate) -> Iterator[str]:
    plan, machine = found.program.plan, found.machine
    yield f"{plan.name} on {found.world_size} x {machine.title}"
    if machine.half_type != "bf16" and plan.train.precision == "bf16":
        yield f"products are timed as those of {machine.half_type}: {machine.title} computes none in bf16"
    if machine.assumed:
        yield f"assumed, not read in any source: {', '.join(name.replace('_', ' ') for name in machine.assumed)}"
    yield f"parameters  {large(found.parameters)}, {large(found.active_parameters)} of them work on a token"


def _time(found: Estimate) -> Iterator[str]:
    count = found.world_size
    yield f"step        {seconds(found.step_seconds)} for {found.tokens:,} {found.counted}"
    each = f"{_three(found.tokens_per_second / count)} a GPU"
    yield f"throughput  {_three(found.tokens_per_second)} {found.counted}/s, {each}"
    sequences = found.sequences / found.step_seconds
    if found.tokens != found.sequences:
        yield f"            {_three(sequences)} sequences/s, {_three(sequences / count)} a GPU"
    yield f"latency     {seconds(found.time.latency)} for one micro-batch forward through all stages"
    yield f"MFU         {share(found.mfu)} of {rate(found.machine.compute)}, by the FLOPs of {_CONVENTION}"
    yield f"utilization {share(found.utilization)} of a rank's time it computes"
    parts = parts_of_step(found.time.stages)
    shares = [f"{name} {share(value / found.step_seconds)}" for name, value in parts.items() if value]
    yield f"            {', '.join(shares)}"
    talk = ", ".join(f"{kind} {seconds(value)}" for kind, value in found.time.collectives.items())
    yield f"talk        {share(found.comm_overhead)} of a step is exposed; on the stage that talks most: {talk}"
    balance = found.balance
    if found.has_experts:
        yield (
            f"experts     rows {share(balance.load_balance)} balanced over ranks, {share(balance.dropped)} of "
            f"choices dropped, if choices are {found.routing.text}"
        )


def _memory(found: Estimate) -> Iterator[str]:
    yield f"memory      {size(found.memory_bytes)} at the peak of the fullest rank, of {size(found.machine.memory)}"
    if not found.fits:
        yield "            DOES NOT FIT: no rank of this plan would reach the end of its first step"
    worst = max(memory.total for memory in found.worst_memory)
    if worst > found.memory_bytes:
        yield f"            {size(worst)} if all tokens went to the experts of one rank"
    talk = max(memory.communication for memory in found.memory)
    yield f"            operands and results of the largest collective are {size(talk)} of what is working"
    yield f"{'stage':>8} {'ranks':>7} " + " ".join(f"{name:>12}" for name in _COLUMNS) + f" {'total':>12}"
    for n, memory in enumerate(found.memory):
        cells = " ".join(f"{size(value):>12}" for value in _cells(memory))
        yield f"{n:>8} {found.world_size // len(found.memory):>7} {cells} {size(memory.total):>12}"


_COLUMNS = ("weights", "gradients", "optimizer", "tables", "activations", "working")


def _cells(memory: Memory) -> tuple[int, ...]:
    held = memory.held
    return held.weights, held.gradients, held.optimizer, held.tables, memory.activations, memory.working

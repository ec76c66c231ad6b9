"""An estimate in words and columns, for a person."""

from collections.abc import Iterator, Sequence

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.memory import Memory
from moec.compiler.cost.requirements import Requirement, parts_of_step

_CONVENTION = "3 x the forward's products, half of causal attention's, chosen experts only"

SHARES = ("comm_overhead", "load_balance", "utilization", "mfu", "bubble")


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
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}"


def size(value: float) -> str:
    for scale, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if abs(value) >= scale:
            return f"{value / scale:.1f} {unit}"
    return f"{value:.0f} B"


def seconds(value: float) -> str:
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(value) >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.1e} s"


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
    return f"{'+' if each.margin >= 0 else '-'}{100 * abs(each.margin):.0f} %"


def _head(found: Estimate) -> Iterator[str]:
    plan, machine = found.program.plan, found.machine
    yield f"{plan.name} on {found.world_size} x {machine.title}"
    if machine.assumed:
        yield f"assumed, not read in any source: {', '.join(name.replace('_', ' ') for name in machine.assumed)}"
    yield f"parameters  {large(found.parameters)}, {large(found.active_parameters)} of them work on a token"


def _time(found: Estimate) -> Iterator[str]:
    count = found.world_size
    yield f"step        {seconds(found.step_seconds)} for {found.tokens:,} tokens"
    each = f"{found.tokens_per_second / count:,.0f} a GPU"
    yield f"throughput  {found.tokens_per_second:,.0f} tokens/s, {each}"
    sequences = found.sequences / found.step_seconds
    yield f"            {sequences:,.1f} sequences/s, {sequences / count:.3g} a GPU"
    yield f"latency     {seconds(found.time.latency)} for one micro-batch forward through all stages"
    yield f"MFU         {100 * found.mfu:.1f} % of {rate(found.machine.compute)}, by the FLOPs of {_CONVENTION}"
    yield f"utilization {100 * found.utilization:.1f} % of a rank's time it computes"
    parts = parts_of_step(found.time.stages)
    shares = [f"{name} {100 * value / found.step_seconds:.1f} %" for name, value in parts.items() if value]
    yield f"            {', '.join(shares)}"
    talk = ", ".join(f"{kind} {seconds(value)}" for kind, value in found.time.collectives.items())
    yield f"talk        {100 * found.comm_overhead:.1f} % of a step is exposed; on the stage that talks most: {talk}"
    balance = found.balance
    if found.has_experts:
        yield (
            f"experts     rows {100 * balance.load_balance:.1f} % balanced over ranks, {100 * balance.dropped:.1f} % "
            f"of choices dropped, if choices are {found.routing.text}"
        )


def _memory(found: Estimate) -> Iterator[str]:
    yield f"memory      {size(found.memory_bytes)} at the peak of the fullest rank, of {size(found.machine.memory)}"
    if not found.fits:
        yield "            DOES NOT FIT: no rank of this plan would reach the end of its first step"
    worst = max(memory.total for memory in found.worst_memory)
    if worst > found.memory_bytes:
        yield f"            {size(worst)} if all tokens went to the experts of one rank"
    yield f"{'stage':>8} {'ranks':>7} " + " ".join(f"{name:>12}" for name in _COLUMNS) + f" {'total':>12}"
    for n, memory in enumerate(found.memory):
        cells = " ".join(f"{size(value):>12}" for value in _cells(memory))
        yield f"{n:>8} {found.world_size // len(found.memory):>7} {cells} {size(memory.total):>12}"


_COLUMNS = ("weights", "gradients", "optimizer", "tables", "activations", "working")


def _cells(memory: Memory) -> tuple[int, ...]:
    held = memory.held
    return held.weights, held.gradients, held.optimizer, held.tables, memory.activations, memory.working

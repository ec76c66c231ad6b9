"""An estimate as figures under a name, and as a row of the page's table of plans."""

from strategy_document.figure import Figure, gigabytes, milliseconds, percent
from strategy_document.search import SIX

from moec.compiler.cost import Estimate, decide


def described(name: str, found: Estimate) -> list[Figure]:
    memory = max(found.memory, key=lambda each: each.total)
    texts = {
        "ranks": f"{found.world_size:,}",
        "parameters": f"{found.parameters / 1e9:.2f} billion",
        "memory": gigabytes(memory.total),
        "memory_share": percent(memory.total / found.machine.memory),
        "weights": gigabytes(memory.held.weights),
        "state": gigabytes(memory.held.gradients + memory.held.optimizer),
        "activations": gigabytes(memory.activations + memory.working),
        "tokens": f"{found.tokens / 1e6:.1f} million tokens",
        "step": f"{found.step_seconds:.3g} s",
        "latency": milliseconds(found.time.latency),
        "throughput": f"{found.tokens_per_second:,.0f} tokens/s",
        "sequences": f"{found.sequences / found.step_seconds:,.0f} sequences/s",
        "comm_overhead": percent(found.comm_overhead),
        "load_balance": percent(found.balance.load_balance),
        "dropped": percent(found.balance.dropped),
        "utilization": percent(found.utilization),
        "bubble": percent(found.bubble),
        "mfu": percent(found.mfu),
    }
    return [Figure(f"{name}_{what}", text) for what, text in texts.items()]


def row(title: str, found: Estimate) -> str:
    """A line of the page's table of plans."""
    broken = ", ".join(each.name for each in decide(found) if each.name in SIX and not each.passed)
    cells = (
        title,
        f"{found.world_size}",
        f"{found.memory_bytes / 2**30:.1f} GiB",
        milliseconds(found.time.latency),
        f"{found.tokens_per_second:,.0f}",
        *(percent(share) for share in (found.comm_overhead, found.balance.load_balance, found.utilization)),
        *(percent(share) for share in (found.bubble, found.mfu)),
        broken or "none",
    )
    return f"| {' | '.join(cells)} |"

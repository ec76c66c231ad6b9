"""What an engineer wants to know of an estimate first, in finished words."""

from dataclasses import dataclass

from moec.compiler.cost.balance import EVEN
from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.say import large, seconds, size
from moec.compiler.report.shares import percent, width
from moec.dsl.show_mesh import say_mesh


@dataclass(frozen=True, slots=True)
class Figure:
    """A number in large print; `width` is that of its bar, in percent, empty where there is none."""

    name: str
    value: str
    note: str
    width: str = ""
    alarming: bool = False


def said_facts(found: Estimate) -> tuple[str, ...]:
    """Lines below the title: the model, the mesh, the hardware, the batch."""
    plan, machine = found.program.plan, found.machine
    schedule = plan.schedule
    sparse = found.active_parameters < found.parameters
    active = f", of which {large(found.active_parameters)} work on a token" if sparse else ""
    return (
        f"{large(found.parameters)} parameters{active}",
        say_mesh(plan.mesh),
        f"{found.world_size:,} × {machine.title}, {machine.ranks_per_node} in a node",
        f"{schedule.kind}, {schedule.batch:,} sequences a step in {schedule.accumulate:,} micro-batches",
        f"computed in {plan.train.precision}",
    )


def figures(found: Estimate) -> tuple[Figure, ...]:
    """The key figures."""
    return (
        Figure("step", seconds(found.step_seconds), f"for {found.tokens:,} tokens"),
        Figure(
            "throughput",
            large(found.tokens_per_second),
            f"tokens/s; {found.tokens_per_second / found.world_size:,.0f} a rank",
        ),
        _share("MFU", found.mfu, f"of {found.machine.compute / 1e12:,.0f} TFLOP/s a rank"),
        _memory(found),
        _share("bubble", found.bubble, "of a rank's time it waits for other stages"),
        _share("exposed communication", found.comm_overhead, "of a rank's time it talks and does not compute"),
        Figure("latency", seconds(found.time.latency), "one micro-batch forward through all stages"),
        _balance(found),
    )


def said_sources(found: Estimate) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Where the numbers of the hardware are from, and which have no source."""
    assumed = tuple(name.replace("_", " ") for name in found.machine.assumed)
    return ("assumed, not read in any source", assumed), ("sources of the hardware's numbers", found.machine.sources)


def _memory(found: Estimate) -> Figure:
    whole, worst = found.machine.memory, max(memory.total for memory in found.worst_memory)
    skewed = f"; {size(worst)} if all tokens went to one rank's experts" if worst > found.memory_bytes else ""
    return Figure(
        "memory",
        size(found.memory_bytes),
        f"of {size(whole)}, fullest rank at its peak{skewed}",
        width(found.memory_bytes / whole),
        found.memory_bytes > whole,
    )


def _balance(found: Estimate) -> Figure:
    if not found.has_experts:
        return Figure("load balance", "even", "the model has no experts")
    if found.balance == EVEN:
        return Figure("load balance", "even", "no rank has more rows than another")
    dropped = f"{percent(found.balance.dropped)} of choices dropped"
    return _share("load balance", found.balance.load_balance, f"{dropped}, if they are {found.routing.text}")


def _share(name: str, value: float, note: str) -> Figure:
    return Figure(name, percent(value), note, width(value))

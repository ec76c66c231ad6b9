"""What a plan costs: the estimate that the commands print, and that `require` is decided by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moec.compiler.cost.balance import Balance, balance_of, worst_skew
from moec.compiler.cost.dry_run import Rank, dry_run
from moec.compiler.cost.machine import Machine
from moec.compiler.cost.memory import Memory, memory_of
from moec.compiler.cost.model_flops import active_parameters, has_experts, model_flops
from moec.compiler.cost.practice import Practice
from moec.compiler.cost.practised import practised
from moec.compiler.cost.routing import UNIFORM, Routing
from moec.compiler.cost.step import StepTime, step_time
from moec.compiler.program import Program

WHOLE = ("tokens", "labels", "int")
"""Kinds of inputs that hold a number for every token."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one plan on one machine. Seconds, bytes, and shares of 1."""

    program: Program
    machine: Machine
    routing: Routing
    ranks: tuple[Rank, ...]
    time: StepTime
    memory: tuple[Memory, ...]
    worst_memory: tuple[Memory, ...]
    """If all tokens went to the experts of one rank, as far as capacities let them."""
    balance: Balance
    parameters: int
    active_parameters: int
    flops: float
    """Of the model in a step, as MFU counts them."""

    @property
    def world_size(self) -> int:
        return self.program.world_size

    @property
    def has_experts(self) -> bool:
        return has_experts(self.program)

    @property
    def sequences(self) -> int:
        return self.program.plan.schedule.batch

    @property
    def tokens(self) -> int:
        """Of a step; samples, where the model reads none."""
        rows = [each.sizes[0] for each in self.program.inputs if each.kind in WHOLE and len(each.sizes[0]) > 1]
        return self.sequences * (rows[0][1] if rows else 1)

    @property
    def counted(self) -> str:
        """What throughput counts: tokens of a model that reads or is held to rows of whole numbers, else samples."""
        return "tokens" if self.tokens != self.sequences else "samples"

    @property
    def memory_bytes(self) -> int:
        """Of the worst rank."""
        return max(memory.total for memory in self.memory)

    @property
    def fits(self) -> bool:
        """Whether what PyTorch allocates is less than the device has; a context and buffers of NCCL come on top."""
        return self.memory_bytes <= self.machine.memory

    @property
    def step_seconds(self) -> float:
        return self.time.seconds

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.time.seconds

    @property
    def mfu(self) -> float:
        return self.flops / (self.time.seconds * self.world_size * self.machine.compute)

    @property
    def utilization(self) -> float:
        """Busy part of the compute stream, mean over the ranks."""
        return _mean([stage.computing for stage in self.time.stages]) / self.time.seconds

    @property
    def bubble(self) -> float:
        """The part of a step in which a rank waits for other stages, mean over the ranks."""
        return _mean([stage.waiting for stage in self.time.stages]) / self.time.seconds

    @property
    def exposed_communication_seconds(self) -> float:
        """Mean over the ranks."""
        return _mean([stage.exposed for stage in self.time.stages])

    @property
    def communication_seconds(self) -> float:
        """All that ranks talk, hidden or not. Emitted programs hide nothing, but for the count of valid tokens."""
        return self.exposed_communication_seconds + _mean([stage.hidden for stage in self.time.stages])

    @property
    def comm_overhead(self) -> float:
        return self.exposed_communication_seconds / self.time.seconds

    def value_of(self, name: str) -> float:
        """What a bound of `require` is held against, in its unit."""
        match name:
            case "memory":
                return float(self.memory_bytes)
            case "latency":
                return self.time.latency
            case "throughput":
                return self.tokens_per_second
            case "comm_overhead":
                return self.comm_overhead
            case "load_balance":
                return self.balance.load_balance
            case "utilization":
                return self.utilization
            case "world":
                return float(self.world_size)
            case "mfu":
                return self.mfu
            case "bubble":
                return self.bubble
            case "step_time":
                return self.time.seconds
            case _:
                raise AssertionError(f"`require` knows no `{name}`")


def estimate(
    program: Program,
    machine: Machine,
    routing: Routing = UNIFORM,
    practice: Practice = Practice(),  # noqa: B008
) -> Estimate:
    """Run the emitted text without memory, and time and weigh what it does.

    The slowest of the ranks decides how long experts take, so ragged rows are those of the fullest.
    """
    balance = balance_of(program, routing)
    ragged = any(value.ragged for unit in program.units.values() for value in unit.values.values())
    gpu = machine.processor == "gpu"
    ranks = _ranks(program, balance.skew if ragged else 1.0, gpu, practice)
    worst = _ranks(program, worst_skew(program), gpu, practice) if ragged else ranks
    memory = memory_of(program, ranks, practice)
    return Estimate(
        program,
        machine,
        routing,
        ranks,
        step_time(program, ranks, machine, practice),
        memory,
        memory_of(program, worst, practice) if ragged else memory,
        balance,
        program.parameters,
        active_parameters(program),
        model_flops(program),
    )


def as_record(found: Estimate) -> dict[str, object]:
    """For machines to read."""
    worst = max(range(len(found.memory)), key=lambda n: found.memory[n].total)
    skewed = max(found.worst_memory, key=lambda memory: memory.total)
    return {
        "name": found.program.plan.name,
        "hardware": found.machine.name,
        "assumed": list(found.machine.assumed),
        "world_size": found.world_size,
        "parameters": found.parameters,
        "active_parameters": found.active_parameters,
        "memory_bytes": found.memory_bytes,
        "fits": found.fits,
        "memory_worst_case_bytes": max(memory.total for memory in found.worst_memory),
        "memory": _memory_record(found.memory[worst]) | {"stage": worst},
        "memory_worst_case": _memory_record(skewed) | {"stage": found.worst_memory.index(skewed)},
        "step_seconds": found.step_seconds,
        "forward_seconds": found.time.latency,
        "tokens": found.tokens,
        "counted": found.counted,
        "tokens_per_second": found.tokens_per_second,
        "tokens_per_second_per_gpu": found.tokens_per_second / found.world_size,
        "sequences_per_second": found.sequences / found.step_seconds,
        "sequences_per_second_per_gpu": found.sequences / found.step_seconds / found.world_size,
        "model_flops": found.flops,
        "mfu": found.mfu,
        "bubble": found.bubble,
        "communication_seconds": found.communication_seconds,
        "exposed_communication_seconds": found.exposed_communication_seconds,
        "communication": dict(found.time.collectives),
        "communication_stage": found.time.talks_most,
        "comm_overhead": found.comm_overhead,
        "utilization": found.utilization,
        "load_balance": found.balance.load_balance,
        "dropped": found.balance.dropped,
        "routing": found.routing.text,
        "stages": [_stage_record(found, n) for n in range(len(found.ranks))],
    }


def _ranks(program: Program, skew: float, gpu: bool, practice: Practice) -> tuple[Rank, ...]:
    return tuple([practised(rank, practice) for rank in dry_run(program, skew, gpu)])


def _memory_record(memory: Memory) -> dict[str, object]:
    return {
        "weights": memory.held.weights,
        "gradients": memory.held.gradients,
        "optimizer": memory.held.optimizer,
        "tables": memory.held.tables,
        "activations": memory.activations,
        "working": memory.working,
        "communication": memory.communication,
        "micro_batches": memory.micro_batches,
        "total": memory.total,
    }


def _stage_record(found: Estimate, n: int) -> Mapping[str, object]:
    stage = found.time.stages[n]
    return {
        "stage": n,
        "ranks": found.world_size // len(found.ranks),
        "forward_seconds": stage.forward.seconds,
        "backward_seconds": stage.backward.seconds,
        "computing": stage.computing,
        "talking": stage.talking,
        "sending": stage.sending,
        "waiting": stage.waiting,
        "starved": stage.starved,
        "reducing": stage.reducing,
        "updating": stage.updating,
        "memory": _memory_record(found.memory[n]),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

"""Holds an estimate against the plan's `require`: every bound kept or not, by how much, and what stands in the way."""

from collections.abc import Mapping
from dataclasses import dataclass
from operator import ge, gt, le, lt

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.memory import Memory
from moec.compiler.cost.step import StageTime
from moec.dsl.plan import Require

_HOLDS = {"<": lt, "<=": le, ">": gt, ">=": ge}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One bound, decided. Value and bound are in bytes, seconds, tokens/s, or shares of 1."""

    name: str
    relation: str
    bound: float
    value: float
    passed: bool
    limit: str
    """What the value is made of; what there is to be changed where it fails."""

    @property
    def margin(self) -> float:
        """How far the value is on the right side of the bound, as a part of the bound; negative where it fails."""
        if not self.bound:
            return 1.0 if self.passed else -1.0
        distance = (self.bound - self.value) if self.relation.startswith("<") else (self.value - self.bound)
        return distance / self.bound


def decide(found: Estimate) -> tuple[Requirement, ...]:
    """Every bound, in the order of the plan."""
    return tuple(decided(require, found) for require in found.program.plan.require)


def decided(require: Require, found: Estimate) -> Requirement:
    value, bound = found.value_of(require.name), float(require.bound)
    passed = _HOLDS[require.relation](value, bound)
    return Requirement(require.name, require.relation, bound, value, passed, limit_of(require.name, found))


def limit_of(name: str, found: Estimate) -> str:
    """What the value of a bound is mostly made of."""
    match name:
        case "memory":
            return _of_memory(max(found.memory, key=lambda memory: memory.total))
        case "load_balance" if not found.has_experts:
            return "the model has no experts"
        case "load_balance":
            return f"choices are {found.routing.text}, {100 * found.balance.dropped:.1f} % of them dropped"
        case "world":
            return "·".join(f"{axis.name} {axis.size}" for axis in found.program.plan.mesh.axes if not axis.over)
        case "latency":
            passes = [stage.forward for stage in found.time.stages]
            computing, talking = sum(each.computing for each in passes), sum(each.talking for each in passes)
            parts = {"computing": computing, "collectives": talking, "messages between stages": found.time.latency}
            parts["messages between stages"] -= computing + talking
            return _parts(parts, found.time.latency)
        case "comm_overhead":
            return _parts(found.time.collectives, found.time.seconds)
        case _:
            return _parts(parts_of_step(found.time.stages), found.time.seconds)


def parts_of_step(stages: tuple[StageTime, ...]) -> dict[str, float]:
    """What a rank does through a step, seconds, mean over the stages."""
    count = len(stages)
    return {
        "computing": sum(stage.computing - stage.updating for stage in stages) / count,
        "collectives": sum(stage.talking for stage in stages) / count,
        "messages between stages": sum(stage.sending for stage in stages) / count,
        "waiting for other stages": sum(stage.waiting for stage in stages) / count,
        "waiting for the host": sum(stage.starved for stage in stages) / count,
        "sums of gradients": sum(stage.reducing for stage in stages) / count,
        "the optimizer": sum(stage.updating for stage in stages) / count,
    }


def _of_memory(memory: Memory) -> str:
    held = memory.held
    parts = {
        "weights": held.weights,
        "gradients": held.gradients,
        "optimizer": held.optimizer,
        f"activations of {memory.micro_batches} micro-batches": memory.activations + memory.working,
    }
    return _parts(parts, memory.total)


def _parts(parts: Mapping[str, float], whole: float) -> str:
    """The three largest, as parts of the whole."""
    largest = sorted(parts.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {100 * value / whole:.0f} %" for name, value in largest if value > 0.005 * whole)

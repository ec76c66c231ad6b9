"""What a plan costs, before anything runs: memory, time, and whether its bounds are kept."""

from moec.compiler.cost.compare import side_by_side
from moec.compiler.cost.estimate import Estimate, as_record, estimate
from moec.compiler.cost.explain import explain
from moec.compiler.cost.machine import Machine, machine_of
from moec.compiler.cost.mend import Mend, mend
from moec.compiler.cost.practice import Practice
from moec.compiler.cost.requirements import Requirement, decide
from moec.compiler.cost.retarget import can_retarget, retarget
from moec.compiler.cost.routing import read_routing
from moec.compiler.cost.say import amount, say_estimate, say_requirements

__all__ = [
    "Estimate",
    "Machine",
    "Mend",
    "Practice",
    "Requirement",
    "amount",
    "as_record",
    "can_retarget",
    "decide",
    "estimate",
    "explain",
    "machine_of",
    "mend",
    "read_routing",
    "retarget",
    "say_estimate",
    "say_requirements",
    "side_by_side",
]

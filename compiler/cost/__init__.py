"""What a plan costs, before anything runs: memory, time, and whether its bounds are kept."""

from moec.compiler.cost.estimate import Estimate, as_record, estimate
from moec.compiler.cost.machine import Machine, machine_of
from moec.compiler.cost.practice import Practice

__all__ = ["Estimate", "Machine", "Practice", "as_record", "estimate", "machine_of"]

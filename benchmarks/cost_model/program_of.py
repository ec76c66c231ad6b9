"""The compiled program of a published run, with as many layers on every stage as its framework put there.

moec balances its stages, embedding and head included, while Megatron gives every stage the same number of layers.
"""

from as_plan import plan_of
from published import Run

from moec.compiler.partition_stages import partition_stages
from moec.compiler.pipeline import compile_plan
from moec.compiler.program import Program
from moec.compiler.schedule_microbatches import schedule_microbatches


def program_of(run: Run) -> Program:
    """What moec makes of the run's plan."""
    program = compile_plan(plan_of(run), until="join_reductions")
    layers = {call.unit for call in program.calls if call.repeated}
    return schedule_microbatches(partition_stages(program, lambda _: {name: name in layers for name in program.units}))

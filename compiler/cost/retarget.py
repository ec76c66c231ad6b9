"""A traced model under another plan of it: other mesh, shards, batch or schedule, without a second trace."""

from dataclasses import replace

from moec.compiler.build_model import build_model
from moec.compiler.pipeline import PASSES
from moec.compiler.program import Program
from moec.compiler.sizes import Sizes
from moec.dsl.plan import Decoder, Plan


def retarget(traced: Program, plan: Plan) -> Program:
    """The program of `plan`, whose model is the one that was traced; raises PlanError where it does not fit the mesh.

    Sizes are formulas, so only the values of their symbols change. What a trace found opaque keeps its value.
    """
    model = build_model(plan)
    sizes = Sizes(model.sizings, opaque=dict(traced.sizes.opaque))
    program = replace(traced, plan=plan, sizes=sizes, inputs=model.inputs)
    for apply in PASSES:
        program = apply(program)
    return program


def can_retarget(traced: Program, plan: Plan) -> bool:
    """Whether the trace speaks for this plan: the same model, and no number in it hides that it hangs on the batch.

    No two sizes of a described model are alike. Those of an imported one can be, such as a batch of 6 and 3 and experts
    of 6 and 3, and then one formula stands for both.
    """
    before, after = traced.plan, plan
    same_batch = _micro_batch(before) == _micro_batch(after)
    alike = before.model == after.model and isinstance(after.model, Decoder)
    return alike and (same_batch or not _depends_on_batch(traced))


def _micro_batch(plan: Plan) -> int:
    return plan.schedule.batch // plan.schedule.accumulate


def _depends_on_batch(traced: Program) -> bool:
    """A capacity over a whole micro-batch is a number that a trace cannot name."""
    ops = [op for graph in traced.graphs.values() for op in graph.ops]
    whole = any(op.target == "moec.route" and "per_microbatch" in op.args for op in ops)
    return whole and bool(traced.sizes.opaque)

"""Makes whole numbers of a count that a model adds up in floating ones, as the sum of a mask made floating is.

A count divides the losses of all ranks and micro-batches, and half precision cannot count beyond 256.
"""

from dataclasses import replace

import torch

from moec.compiler.program import Graph, Op, Value
from moec.compiler.rules.elementwise import CASTS

_EXACT = frozenset(
    f"aten.{name}"
    for name in (
        "add.Tensor sub.Tensor mul.Tensor neg sum sum.dim_IntList view reshape expand squeeze squeeze.dim unsqueeze "
        "transpose.int permute slice.Tensor select.int contiguous flatten.using_ints"
    ).split()
)
"""Operators that make whole numbers of whole numbers, and give the type of what they are given."""


def count_in_integers(graph: Graph) -> Graph:
    """The graph with casts of whole numbers to floating ones made casts to int64, and what is made of them int64 too.

    Ensures: a value that stays floating is not known to be whole.
    """
    values = dict(graph.values)
    ops: list[Op] = []
    for op in graph.ops:
        output = values[op.outputs[0]]
        exact = not any(values[name].dtype.is_floating_point for name in op.inputs) and _whole_arguments(op)
        if output.dtype.is_floating_point and exact and op.target.removeprefix("aten.") in CASTS:
            op = Op("aten.to.dtype", (op.args[0], torch.int64), (), op.outputs, op.where)
            values[output.name] = _integer(output)
        elif output.dtype.is_floating_point and exact and op.target in _EXACT and op.inputs:
            values[output.name] = _integer(output)
        ops.append(op)
    return replace(graph, ops=tuple(ops), values=values)


def _integer(value: Value) -> Value:
    return replace(value, dtype=torch.int64)


def _whole_arguments(op: Op) -> bool:
    """Are the numbers among its arguments whole, and is no floating type asked for?"""
    if op.target.removeprefix("aten.") in CASTS:
        return True
    return not any(isinstance(a, float | torch.dtype) for a in (*op.args, *(value for _, value in op.kwargs)))

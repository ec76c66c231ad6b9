"""FLOPs of one operator's forward: those of its products. What is no product has none: an embedding is a look-up."""

from collections.abc import Callable, Mapping
from math import prod

from moec.compiler.program import Op, Value
from moec.compiler.rules import RULES
from moec.compiler.rules.rule import Seen
from moec.compiler.sizes import Sizes

Shape = Callable[[Value], list[int]]
"""How large a value is: the whole of it, or the part of one rank."""

GROUPED = ("moec.grouped_linear", "moec.runtime.routing.grouped_linear_ragged")
"""Products with a matrix for each expert."""

_PRODUCTS = (
    "aten.linear",
    "aten.addmm",
    "aten.mm",
    "aten.bmm",
    "aten.baddbmm",
    "aten.matmul",
    "aten.einsum",
    "aten.conv1d",
    "aten.conv2d",
    "aten.conv3d",
)


def op_flops(op: Op, values: Mapping[str, Value], sizes: Sizes, shape: Shape, rows: Callable[[Value], float]) -> float:
    """`rows` says how many rows of a buffer of experts are in use. Under a causal mask half of attention counts."""
    inputs = [values[name] for name in op.inputs]
    if op.target in GROUPED:
        *_, outputs, depth = shape(inputs[1])
        return 2.0 * rows(inputs[0]) * outputs * depth
    if op.target == "aten.scaled_dot_product_attention":
        query, key, value = (shape(each) for each in inputs[:3])
        causal = bool(dict(op.kwargs).get("is_causal", op.args[5] if len(op.args) > 5 else False))
        return (1.0 if causal else 2.0) * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    if op.target.rpartition(".")[0] in _PRODUCTS or op.target in _PRODUCTS:
        return _product_flops(op, values, sizes, shape)
    return 0.0


def whole_shape(value: Value, sizes: Sizes) -> list[int]:
    """A `Shape` of the whole of a value, once its sizes are given."""
    return [int(sizes.value(size, 0)) for size in value.shape]


def _product_flops(op: Op, values: Mapping[str, Value], sizes: Sizes, shape: Shape) -> float:
    """Twice the elements of the result times what is summed over, which the operator's rule says."""
    inputs = tuple(values[name] for name in op.inputs)
    outputs = tuple(values[name] for name in op.outputs)
    made = prod(shape(outputs[0]))
    if op.target.startswith("aten.conv"):
        return 2.0 * made * prod(shape(inputs[1])[1:])
    rule = RULES[op.target](Seen(op, inputs, outputs, sizes))
    depth: dict[str, int] = {}
    for factors, value in zip(rule.inputs, inputs, strict=False):
        depth |= {f: size for f, size in zip(factors, shape(value), strict=True) if f is not None}
    return 2.0 * made * prod(depth[factor] for factor in rule.contracted)

"""Rules of operators that work on every element by itself, with broadcasting."""

from moec.compiler.rules.rule import Factors, Rule, Seen, read_terms

NONLINEAR = [
    "abs",
    "acos",
    "asin",
    "atan",
    "ceil",
    "clamp",
    "clamp_min",
    "clamp_max",
    "cos",
    "elu",
    "erf",
    "exp",
    "expm1",
    "floor",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "isfinite",
    "isinf",
    "isnan",
    "leaky_relu",
    "log",
    "log1p",
    "log2",
    "log_sigmoid",
    "logical_not",
    "logical_and",
    "logical_or",
    "mish",
    "reciprocal",
    "relu",
    "relu6",
    "round",
    "rsqrt",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softplus",
    "sqrt",
    "square",
    "tanh",
    "bitwise_not",
    "pow.Tensor_Scalar",
    "pow.Tensor_Tensor",
    "pow.Scalar",
    "maximum",
    "minimum",
    "atan2",
    "fmod.Tensor",
    "remainder.Tensor",
    "remainder.Scalar",
    "eq.Tensor",
    "eq.Scalar",
    "ne.Tensor",
    "ne.Scalar",
    "lt.Tensor",
    "lt.Scalar",
    "le.Tensor",
    "le.Scalar",
    "gt.Tensor",
    "gt.Scalar",
    "ge.Tensor",
    "ge.Scalar",
    "add.Scalar",
    "sub.Scalar",
    "rsub.Scalar",
    "zeros_like",
    "ones_like",
    "full_like",
    "detach",
    "where.Scalar",
    "where.ScalarSelf",
    "where.ScalarOther",
    "floor_divide",
    "bitwise_and.Tensor",
    "bitwise_or.Tensor",
    "masked_fill.Tensor",
    "masked_fill.Scalar",
]

LINEAR = {
    "neg": "0",
    "clone": "0",
    "contiguous": "0",
    "mul.Scalar": "0",
    "div.Scalar": "0",
    "where.self": "1 + 2",
    "copy": "1",
}

CASTS = ["to.dtype", "to.dtype_layout", "_to_copy"]
SUMS = ["add.Tensor", "sub.Tensor"]


def elementwise(linear: str):
    def rule(seen: Seen) -> Rule:
        (output,) = seen.outputs
        made: Factors = tuple(f"{len(output.shape) - dim}" for dim in range(len(output.shape)))
        given = tuple(_aligned(seen, place, made) for place in range(len(seen.inputs)))
        return Rule(given, (made,), read_terms(linear, len(seen.inputs)))

    return rule


def _aligned(seen: Seen, place: int, made: Factors) -> Factors:
    """Factors of an input, aligned at the right; a dim of one that is repeated is whole."""
    value, (output,) = seen.inputs[place], seen.outputs
    rank = len(value.shape)
    pairs = zip(value.shape, output.shape[len(output.shape) - rank :], made[len(made) - rank :], strict=True)
    return tuple(factor if size == whole else None for size, whole, factor in pairs)


def sum_of_two(seen: Seen) -> Rule:
    """x + y; not linear where y is a number, which would be added on every rank."""
    return elementwise("0 + 1" if len(seen.inputs) > 1 else "")(seen)


def product(seen: Seen) -> Rule:
    return elementwise("0*1" if len(seen.inputs) > 1 else "0")(seen)


def cast(seen: Seen) -> Rule:
    """Linear between floating types only: whole numbers are cut off."""
    floating = seen.inputs[0].dtype.is_floating_point and seen.outputs[0].dtype.is_floating_point
    return elementwise("0" if floating else "")(seen)


def prelu(seen: Seen) -> Rule:
    """The slope is one, or one a channel."""
    rank = len(seen.inputs[0].shape)
    factors: Factors = tuple(f"d{dim}" for dim in range(rank))
    slope = factors[1:2] if rank > 1 and seen.inputs[1].shape == seen.inputs[0].shape[1:2] else (None,)
    return Rule((factors, slope[: len(seen.inputs[1].shape)]), (factors,))


def linear_division(seen: Seen) -> Rule:
    """x / y is linear in x, for a y that every rank has."""
    rule = elementwise("")(seen)
    return Rule(rule.inputs, rule.outputs, ((0, 1),) if len(seen.inputs) > 1 else ((0,),))


def broadcast(seen: Seen) -> Rule:
    """Every output is one input, repeated to the shape that all have."""
    first = Seen(seen.op, seen.inputs, seen.outputs[:1], seen.sizes)
    rule = elementwise("")(first)
    shared = tuple(factor if all(factor in factors for factors in rule.inputs) else None for factor in rule.outputs[0])
    given = tuple(tuple(factor if factor in shared else None for factor in factors) for factors in rule.inputs)
    return Rule(given, (shared,) * len(seen.outputs))

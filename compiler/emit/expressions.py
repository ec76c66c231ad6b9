"""Operators as the Python that a person would write for them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import BuiltinFunctionType

import torch
import torch.nn.functional as F
from sympy import Expr

from moec.compiler.emit.layout import quoted
from moec.compiler.emit.sizes_text import SizeNames
from moec.compiler.program import Group, Op, Part, Program, Ref, Unit, Value

ATOM, UNARY, TIMES, PLUS, COMPARE = 5, 4, 3, 2, 1


@dataclass(frozen=True, slots=True)
class Text:
    """An expression and how tightly it binds."""

    text: str
    tight: int = ATOM

    def at(self, tight: int) -> str:
        return self.text if self.tight >= tight else f"({self.text})"


@dataclass(slots=True)
class Writer:
    """Turns operators into expressions, and notes which names they need from elsewhere."""

    program: Program
    sizes: SizeNames
    unit: Unit
    imports: dict[str, set[str]]  # module -> names
    device: str = ""  # an expression for the device of tensors made out of nothing

    def expression(self, op: Op, values: Mapping[str, Text]) -> Text:
        """The operator applied to expressions for its inputs."""
        if op.target.startswith("moec."):
            return self._call_moec(op, values)
        name = op.target.removeprefix("aten.")
        if name in _OPERATORS:
            return _OPERATORS[name](self, op, values)
        base = name.partition(".")[0]
        if base in _METHODS:
            return self.method(base, op, values)
        if isinstance(getattr(F, base, None), BuiltinFunctionType):
            return Text(f"F.{base}({', '.join(self._without_defaults(op, values))})")
        if base in _FUNCTIONAL:
            return self.call(f"F.{base}", op, values)
        if base in _TORCH:
            return self.call(f"torch.{base}", op, values)
        target = f"torch.ops.aten.{name}"
        assert all(part.isidentifier() for part in target.split(".")), f"{target} is no operator of torch"
        return self.call(target, op, values)

    def argument(self, value: object, values: Mapping[str, Text], tight: int = 0) -> str:
        match value:
            case Ref(name=name):
                return values[name].at(tight)
            case Group(axes=axes):
                return quoted(self.program.plan.mesh.name(axes))
            case Part(size=size, axes=axes):
                return self.sizes.part(size, axes)
            case Expr():
                return self.sizes.text(value)
            case torch.dtype():
                return dtype_text(value)
            case tuple():
                inner = ", ".join(self.argument(item, values) for item in value)
                return f"({inner},)" if len(value) == 1 else f"({inner})"
            case str():
                return quoted(value)
            case bool() | int() | float() | None:
                return (
                    "float('inf')"
                    if value == float("inf")
                    else "float('-inf')"
                    if value == float("-inf")
                    else repr(value)
                )
            case _:
                raise AssertionError(f"an argument that cannot be written: {value!r}")

    def arguments(self, op: Op, values: Mapping[str, Text], skip: int = 0, drop_none: bool = True) -> list[str]:
        args = list(op.args[skip:])
        while drop_none and args and args[-1] is None:
            args.pop()
        listed = [self.argument(arg, values) for arg in args]
        return [*listed, *(f"{key}={self.argument(value, values)}" for key, value in op.kwargs)]

    def _without_defaults(self, op: Op, values: Mapping[str, Text]) -> list[str]:
        """The arguments that differ from what the operator's schema has; by name after one that is left out."""
        packet, _, overload = op.target.removeprefix("aten.").partition(".")
        schema = getattr(getattr(torch.ops.aten, packet), overload or "default")._schema
        listed: list[str] = []
        for place, (given, known) in enumerate(zip(op.args, schema.arguments, strict=False)):
            if known.has_default_value() and _same(given, known.default_value):
                continue
            text = self.argument(given, values)
            listed.append(text if place == len(listed) else f"{known.name}={text}")
        return [*listed, *(f"{key}={self.argument(value, values)}" for key, value in op.kwargs)]

    def call(self, function: str, op: Op, values: Mapping[str, Text]) -> Text:
        return Text(f"{function}({', '.join(self.arguments(op, values))})")

    def method(self, name: str, op: Op, values: Mapping[str, Text]) -> Text:
        subject = self.argument(op.args[0], values, ATOM)
        return Text(f"{subject}.{name}({', '.join(self.arguments(op, values, skip=1))})")

    def first(self, op: Op, values: Mapping[str, Text]) -> str:
        return self.argument(op.args[0], values, ATOM)

    def output(self, op: Op) -> Value:
        return self.unit.values[op.outputs[0]]

    def _call_moec(self, op: Op, values: Mapping[str, Text]) -> Text:
        """A function of the runtime, by its module."""
        path, _, name = op.target.rpartition(".")
        module = "routing" if path == "moec" else path.rpartition(".")[2]
        self.imports.setdefault("moec.runtime", set()).add(module)
        return Text(f"{module}.{name}({', '.join(self.arguments(op, values, drop_none=False))})")


def dtype_text(dtype: torch.dtype) -> str:
    """Half precision is the plan's, single precision becomes double under verify; both are names in the header."""
    names = {torch.bfloat16: "DTYPE", torch.float32: "FLOAT"}
    return names.get(dtype, str(dtype))


def _same(given: object, default: object) -> bool:
    """An argument and a schema's default, which has lists for tuples."""
    return type(given) is type(default) and given == default if not isinstance(given, tuple) else list(given) == default


Write = Callable[[Writer, Op, Mapping[str, Text]], Text]


def _infix(sign: str, tight: int) -> Write:
    def write(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
        if op.kwargs:
            return writer.call({"+": "torch.add", "-": "torch.sub"}.get(sign, "torch.div"), op, values)
        left = writer.argument(op.args[0], values, tight)
        right = _grouped(writer, op.args[1], values, tight + (sign in "-/@"))
        return Text(f"{left} {sign} {right}", tight)

    return write


def _grouped(writer: Writer, argument: object, values: Mapping[str, Text], tight: int) -> str:
    """An argument that is a product of names, in brackets where it must be."""
    text = writer.argument(argument, values, tight)
    compound = isinstance(argument, Expr) and not text.isidentifier() and (" " in text)
    return f"({text})" if compound else text


def _sized(name: str) -> Write:
    """view and its like: the shape is that of a rank's part."""

    def write(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
        shape = writer.sizes.shape(writer.output(op))
        if not shape and not writer.unit.values[op.inputs[0]].shape:
            return values[op.inputs[0]]  # a scalar stays one
        return Text(f"{writer.first(op, values)}.{name}({', '.join(shape) or '()'})")

    return write


def _copy(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
    """The second tensor in the shape and type of the first."""
    x = f"{writer.argument(op.args[1], values, ATOM)}.expand({', '.join(writer.sizes.shape(writer.output(op)))})"
    same = writer.unit.values[op.inputs[1]].dtype == writer.output(op).dtype
    return Text(x if same else f"{x}.to({dtype_text(writer.output(op).dtype)})")


def _made(name: str) -> Write:
    """A tensor made out of nothing, on the device of the others; a floating one states its type."""

    def write(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
        arguments = writer.arguments(op, values)
        dtype = writer.output(op).dtype
        if dtype.is_floating_point and all(key != "dtype" for key, _ in op.kwargs):
            arguments.append(f"dtype={dtype_text(dtype)}")
        device = [f"device={writer.device}"] if writer.device else []
        return Text(f"torch.{name}({', '.join([*arguments, *device])})")

    return write


def _split(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
    return writer.method("split", op, values)


def _negative(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
    return Text(f"-{writer.argument(op.args[0], values, UNARY)}", UNARY)


def _cast(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
    dtype = next(a for a in (*op.args[1:], *(v for _, v in op.kwargs)) if isinstance(a, torch.dtype))
    return Text(f"{writer.first(op, values)}.to({dtype_text(dtype)})")


def _embedding(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
    table, tokens = (writer.argument(arg, values) for arg in op.args[:2])
    padding = f", padding_idx={op.args[2]}" if len(op.args) > 2 and op.args[2] != -1 else ""
    return Text(f"F.embedding({tokens}, {table}{padding})")


def _slice(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
    defaults = (0, None, None, 1)
    dim, start, end, step = (*op.args[1:], *defaults[len(op.args) - 1 :])
    rank = len(writer.output(op).shape)
    assert isinstance(dim, int)
    low = "" if start in (None, 0) else writer.argument(start, values)
    high = "" if end is None or (isinstance(end, int) and end >= 2**62) else writer.argument(end, values)
    stride = "" if step == 1 else f":{writer.argument(step, values)}"
    if not low and not high and not stride:
        return values[op.inputs[0]]
    index = [":"] * (dim % rank) + [f"{low}:{high}{stride}"]
    return Text(f"{writer.first(op, values)}[{', '.join(index)}]")


_BENDS = {"huber_loss": "delta", "smooth_l1_loss": "beta"}
"""Losses that are squares near zero, and what says how near."""


def _loss(name: str, reduction: int) -> Write:
    def write(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
        args = [*op.args, *(None,) * 8]
        texts = [writer.argument(arg, values) for arg in op.args[:2]]
        if name == "cross_entropy":
            texts += [f"weight={writer.argument(args[2], values)}"] if args[2] is not None else []
            texts += [f"ignore_index={args[4]!r}"] if args[4] not in (None, -100) else []
            texts += [f"label_smoothing={args[5]!r}"] if args[5] else []
        if name in _BENDS and len(op.args) > 3 and op.args[3] != 1.0:
            texts += [f"{_BENDS[name]}={writer.argument(args[3], values)}"]
        if name == "binary_cross_entropy_with_logits":
            given = zip(("weight", "pos_weight"), args[2:4], strict=True)
            texts += [f"{word}={writer.argument(arg, values)}" for word, arg in given if arg is not None]
        kind = {0: "none", 1: "mean", 2: "sum", None: "mean"}[
            args[reduction] if isinstance(args[reduction], int) else None
        ]
        return Text(f'F.{name}({", ".join(texts)}, reduction="{kind}")')

    return write


def _power(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
    base, exponent = (writer.argument(arg, values, UNARY + 1) for arg in op.args[:2])
    return Text(f"{base} ** {exponent}", UNARY)


def _where(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
    return writer.call("torch.where", op, values)


def _group_norm(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
    return Text(f"F.group_norm({', '.join(writer.arguments(replace_args(op, 5), values))})")


def _layer_norm(writer: Writer, op: Op, values: Mapping[str, Text]) -> Text:
    return Text(f"F.layer_norm({', '.join(writer.arguments(replace_args(op, 5), values))})")


def replace_args(op: Op, count: int) -> Op:
    """Without arguments that only some backends read."""
    return Op(op.target, op.args[:count], (), op.outputs, op.where)


_SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}

_OPERATORS: dict[str, Write] = {
    **{f"add.{kind}": _infix("+", PLUS) for kind in ("Tensor", "Scalar")},
    **{f"sub.{kind}": _infix("-", PLUS) for kind in ("Tensor", "Scalar")},
    **{f"mul.{kind}": _infix("*", TIMES) for kind in ("Tensor", "Scalar")},
    **{f"div.{kind}": _infix("/", TIMES) for kind in ("Tensor", "Scalar")},
    **{f"{name}.{kind}": _infix(sign, COMPARE) for name, sign in _SIGNS.items() for kind in ("Tensor", "Scalar")},
    "matmul": _infix("@", TIMES),
    "mm": _infix("@", TIMES),
    "pow.Scalar": _power,
    "neg": _negative,
    "to.dtype": _cast,
    "to.dtype_layout": _cast,
    "_to_copy": _cast,
    "view": _sized("view"),
    "_unsafe_view": _sized("view"),
    "reshape": _sized("reshape"),
    "expand": _sized("expand"),
    **{f"squeeze{kind}": _sized("reshape") for kind in ("", ".dim", ".dims")},
    "split_with_sizes": _split,
    "copy": _copy,
    "flatten.using_ints": _sized("reshape"),
    "unflatten.int": _sized("reshape"),
    "embedding": _embedding,
    "slice.Tensor": _slice,
    "cross_entropy_loss": _loss("cross_entropy", 3),
    "mse_loss": _loss("mse_loss", 2),
    "l1_loss": _loss("l1_loss", 2),
    "huber_loss": _loss("huber_loss", 2),
    "smooth_l1_loss": _loss("smooth_l1_loss", 2),
    "binary_cross_entropy_with_logits": _loss("binary_cross_entropy_with_logits", 4),
    "where.self": _where,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "arange": _made("arange"),
    "arange.start": _made("arange"),
    "arange.start_step": _made("arange"),
    "zeros": _made("zeros"),
    "ones": _made("ones"),
    "full": _made("full"),
    "linspace": _made("linspace"),
    "eye": _made("eye"),
    "scalar_tensor": _made("tensor"),
}

_METHODS = frozenset(
    (
        "transpose permute t unsqueeze squeeze chunk split unbind select exp log log1p expm1 sqrt rsqrt sin cos tanh "
        "sigmoid abs sign floor ceil round reciprocal square clamp clamp_min clamp_max sum mean amax amin argmax "
        "argmin max min prod cumsum sort argsort topk softmax log_softmax logsumexp gather index_select flip roll tril "
        "triu any all detach pow masked_fill logical_not logical_and logical_or isfinite isnan isinf narrow "
        "clone contiguous"
    ).split()
)

_FUNCTIONAL = frozenset(
    (
        "pad prelu rms_norm silu relu relu6 elu selu leaky_relu mish hardswish hardsigmoid hardtanh glu max_pool1d "
        "max_pool2d max_pool3d adaptive_avg_pool2d adaptive_avg_pool3d"
    ).split()
)
"""Beside those that torch.nn.functional has from C++ as they are."""

_TORCH = frozenset(
    "cat stack bmm addmm baddbmm mv dot einsum maximum minimum atan2 erf zeros_like ones_like full_like rsub".split()
)

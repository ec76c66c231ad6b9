"""The table of operator rules: a line each. What is not here has no rule, and a diagnostic says so."""

from collections.abc import Callable

from moec.compiler.rules import products, reductions, shapes
from moec.compiler.rules.elementwise import (
    CASTS,
    LINEAR,
    NONLINEAR,
    SUMS,
    broadcast,
    cast,
    elementwise,
    linear_division,
    prelu,
    product,
    sum_of_two,
)
from moec.compiler.rules.rule import Rule, Seen, read_rule

RuleOf = Callable[[Seen], Rule]


def _text(text: str, linear: str = "") -> RuleOf:
    return lambda seen: read_rule(text, linear, seen)


def _routed(place: int, text: str, linear: str) -> RuleOf:
    """Where a routing group is a sequence; where it is all that there is, no sample can go elsewhere."""
    whole = text.replace("b", "_")
    return lambda seen: read_rule(text if seen.argument(place, "group") == "per_sequence" else whole, linear, seen)


RULES: dict[str, RuleOf] = {
    **{f"aten.{name}": elementwise("") for name in NONLINEAR},
    **{f"aten.{name}": elementwise(linear) for name, linear in LINEAR.items()},
    **{f"aten.{name}": cast for name in CASTS},
    **{f"aten.{name}": sum_of_two for name in SUMS},
    "aten.prelu": prelu,
    "aten.mul.Tensor": product,
    "aten.div.Tensor": linear_division,
    "aten.broadcast_tensors": broadcast,
    **{target: products.by_text(target) for target in products.TEXTS},
    "aten.addmm": products.plus_product("m k, k n -> m n"),
    "aten.baddbmm": products.plus_product("b m k, b k n -> b m n"),
    "aten.einsum": products.einsum,
    "aten.matmul": products.matmul,
    **{f"aten.conv{n}d": products.convolution for n in (1, 2, 3)},
    "aten.scaled_dot_product_attention": products.attention,
    "aten.view": shapes.view,
    "aten.reshape": shapes.view,
    "aten._unsafe_view": shapes.view,
    "aten.flatten.using_ints": shapes.view,
    "aten.unflatten.int": shapes.view,
    "aten.transpose.int": shapes.transpose,
    "aten.permute": shapes.permute,
    "aten.t": shapes.reversed_dims,
    "aten.numpy_T": shapes.reversed_dims,
    "aten.mT": shapes.last_two,
    "aten.mH": shapes.last_two,
    "aten.split.Tensor": shapes.pieces,
    "aten.split_with_sizes": shapes.pieces,
    "aten.chunk": shapes.pieces,
    "aten.slice.Tensor": shapes.narrow,
    "aten.narrow": shapes.narrow,
    "aten.select.int": shapes.without,
    "aten.unbind.int": shapes.without,
    "aten.cat": shapes.join,
    "aten.stack": shapes.stack,
    "aten.slice_scatter": shapes.put_slice,
    "aten.select_scatter": shapes.put_row,
    "aten.unsqueeze": shapes.unsqueeze,
    "aten.squeeze": shapes.squeeze,
    "aten.squeeze.dim": shapes.squeeze,
    "aten.squeeze.dims": shapes.squeeze,
    "aten.expand": shapes.expand,
    "aten.pad": shapes.pad,
    "aten.constant_pad_nd": shapes.pad,
    "aten.flip": shapes.whole_dims(1, "dims", linear=True),
    "aten.roll": shapes.whole_dims(2, "dims", linear=True),
    "aten.cumsum": shapes.whole_dims(1, "dim", linear=True),
    "aten.tril": shapes.whole_dims(9, "dim", linear=True),
    "aten.triu": shapes.whole_dims(9, "dim", linear=True),
    "aten.softmax.int": shapes.whole_dims(1, "dim"),
    "aten._softmax": shapes.whole_dims(1, "dim"),
    "aten.log_softmax.int": shapes.whole_dims(1, "dim"),
    "aten._log_softmax": shapes.whole_dims(1, "dim"),
    "aten.glu": reductions.whole,
    "aten.sort": shapes.whole_dims(1, "dim", last=True),
    "aten.sort.stable": shapes.whole_dims(1, "dim", last=True),
    "aten.argsort": shapes.whole_dims(1, "dim", last=True),
    "aten.topk": shapes.whole_dims(2, "dim", last=True),
    "aten.sum": reductions.summed,
    "aten.sum.dim_IntList": reductions.summed,
    "aten.mean": reductions.reduced_whole,
    "aten.mean.dim": reductions.reduced_whole,
    **{
        f"aten.{name}": reductions.reduced_whole
        for name in [
            "amax",
            "amin",
            "argmax",
            "argmin",
            "max",
            "max.dim",
            "min",
            "min.dim",
            "prod",
            "prod.dim_int",
            "logsumexp",
            "any",
            "any.dim",
            "all",
            "all.dim",
            "std.correction",
            "var.correction",
        ]
    },
    **{f"aten.{name}": reductions.spread for name in ("std", "std.dim", "var", "var.dim")},
    **{f"aten.{name}": reductions.norm for name in ("norm.Scalar", "norm.ScalarOpt_dim", "linalg_vector_norm")},
    "aten.layer_norm": reductions.layer_norm,
    "aten.rms_norm": reductions.layer_norm,
    "aten.group_norm": reductions.group_norm,
    **{
        f"aten.{name}{n}d": reductions.pooling
        for n in (1, 2, 3)
        for name in ("avg_pool", "max_pool", "adaptive_avg_pool")
    },
    "aten.gather": reductions.gather,
    "aten.index_select": reductions.index_select,
    "aten.one_hot": reductions.one_hot,
    "aten.cross_entropy_loss": reductions.cross_entropy,
    "aten.mse_loss": reductions.pairwise_loss,
    "aten.l1_loss": reductions.pairwise_loss,
    "aten.huber_loss": reductions.pairwise_loss,
    "aten.smooth_l1_loss": reductions.pairwise_loss,
    "aten.binary_cross_entropy_with_logits": reductions.pairwise_loss,
    **{
        f"aten.{name}": reductions.whole
        for name in [
            "arange",
            "arange.start",
            "arange.start_step",
            "zeros",
            "ones",
            "full",
            "scalar_tensor",
            "eye",
            "linspace",
            "tril_indices",
        ]
    },
    "moec.route": _text("b _ _ -> b _ _, b _ _, b _ _"),
    "moec.dispatch": _routed(5, "b _ h, b _ _, b _ _ -> _ b _ h", "0"),
    "moec.collect": _routed(4, "_ b _ h, b _ _, b _ _, b _ _ -> b _ h", "0*1"),
}

MODULES = ("routing", "vocabulary", "heads", "local_experts")
"""Modules of the runtime whose functions stand for operators in emitted text."""

__all__ = ["MODULES", "RULES", "Rule", "RuleOf", "Seen", "read_rule"]

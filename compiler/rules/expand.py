"""Operators that are several on shards: lookups and losses over split classes, means, and heads that are shared.

An expansion returns False where the operator's plain rule will do.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from sympy import Expr, Integer, Mul

from moec.compiler.place import Placer
from moec.compiler.placement import Axes, Placement, moves_between
from moec.compiler.program import Group, Op, Part, Ref, Value, whole
from moec.compiler.rules import RULES, Rule
from moec.compiler.rules.expand_routing import collect, dispatch, grouped_linear, route
from moec.compiler.rules.rule import Factors, Seen

Expansion = Callable[[Placer, Op], bool]

NONE, MEAN, SUM = 0, 1, 2
"""torch's numbers of the reductions of a loss."""


def embedding(placer: Placer, op: Op) -> bool:
    """Rows of the table are split: every rank looks up those that it has, and the sum is the result."""
    table, tokens = (placer.values[name] for name in op.inputs)
    axes = table.placement.split[0]
    if not axes or placer.seen(op).integer(2, "padding_idx", -1) >= 0:
        return False
    positions: Factors = tuple(f"p{dim}" for dim in range(len(tokens.shape)))
    rule = Rule((positions, ("v", "d")), ((*positions, "d"),), ((1,),))
    args = (Ref(tokens.name), Ref(table.name), Group(axes))
    placer.apply(Op("moec.runtime.vocabulary.embed_rows", args, (), op.outputs, op.where), rule)
    return True


def cross_entropy(placer: Placer, op: Op) -> bool:
    """Classes are split: only numbers without the class dim cross ranks. A mean divides by the labels of all ranks."""
    logits, labels = (placer.values[name] for name in op.inputs[:2])
    seen = placer.seen(op)
    reduction, ignore = seen.integer(3, "reduction", MEAN), seen.integer(4, "ignore_index", -100)
    dim = min(1, len(logits.shape) - 1)
    axes = logits.placement.split[dim]
    plain = len(op.inputs) == 2 and not labels.dtype.is_floating_point
    smoothing = seen.argument(5, "label_smoothing", 0.0)
    positions: Factors = tuple(f"p{n}" for n in range(len(logits.shape)) if n != dim)
    if reduction == NONE:
        return False
    if plain and axes and not smoothing:
        summed = _split_cross_entropy(placer, op, ignore, dim)
    elif plain and reduction == MEAN and any(logits.placement.split):
        name = placer.new_name(op.outputs[0])
        total = whole(name, (), placer.graph.values[op.outputs[0]].dtype)
        args = (Ref(logits.name), Ref(labels.name), None, SUM, ignore, smoothing)
        factors = tuple(None if n == dim else f"p{n}" for n in range(len(logits.shape)))
        (summed,) = placer.apply(Op(op.target, args, (), (name,), op.where), Rule((factors, positions), ((),)), [total])
    else:
        return False
    if reduction == SUM:
        _rename(placer, summed, op)
        return True
    valid = _valid(placer, op, labels, positions, ignore)
    division = Op("aten.div.Tensor", (Ref(summed.name), Ref(valid.name)), (), op.outputs, op.where)
    placer.apply(division, Rule(((), ()), ((),), ((0, 1),)))
    return True


def _split_cross_entropy(placer: Placer, op: Op, ignore: int, dim: int) -> Value:
    logits, labels = (placer.values[name] for name in op.inputs[:2])
    axes, classes = logits.placement.split[dim], logits.shape[dim]
    factors: Factors = tuple("c" if n == dim else f"p{n}" for n in range(len(logits.shape)))
    positions: Factors = tuple(factor for factor in factors if factor != "c")
    shape = tuple(size for n, size in enumerate(logits.shape) if n != dim)
    top = whole(placer.new_name("top"), shape, torch.float32, label="top")
    args = (Ref(logits.name), Group(axes), classes, dim)
    highest = Op("moec.runtime.vocabulary.highest", args, (), (top.name,), op.where)
    (found,) = placer.apply(highest, Rule((factors,), (positions,)), [top])
    found = replace(found, placement=Placement(found.placement.split, highest=axes), differentiable=False)
    placer.values[found.name] = found
    everyone = placer.coerce(found.name, Placement(found.placement.split), op.where, "the largest logit of all ranks")
    sums = whole(placer.new_name("sums"), (Integer(2), *shape), torch.float32, label="sums")
    args = (Ref(logits.name), Ref(everyone), Ref(labels.name), Group(axes), classes, ignore, dim)
    rule = Rule((factors, positions, positions), ((None, *positions),))
    placer.apply(Op("moec.runtime.vocabulary.class_sums", args, (), (sums.name,), op.where), rule, [sums])
    loss = whole(placer.new_name(op.outputs[0]), (), torch.float32, label="loss")
    args = (Ref(sums.name), Ref(labels.name), ignore)
    last = Op("moec.runtime.vocabulary.cross_entropy_of_sums", args, (), (loss.name,), op.where)
    (loss,) = placer.apply(last, Rule(((None, *positions), positions), ((),)), [loss])
    return loss


def _valid(placer: Placer, op: Op, labels: Value, positions: Factors, ignore: int) -> Value:
    """How many labels count, on all ranks."""
    mask = whole(placer.new_name("valid"), labels.shape, torch.bool, label="valid")
    placer.apply(
        Op("aten.ne.Scalar", (Ref(labels.name), ignore), (), (mask.name,), op.where),
        Rule((positions,), (positions,)),
        [mask],
    )
    count = whole(placer.new_name("count"), (), torch.int64, label="count")
    (count,) = placer.apply(
        Op("aten.sum", (Ref(mask.name),), (), (count.name,), op.where), Rule((positions,), ((),)), [count]
    )
    return placer.values[placer.coerce(count.name, Placement(()), op.where, "the labels of all ranks")]


def mean(placer: Placer, op: Op) -> bool:
    """Over a split dim: a sum, which is then a partial one, over the number of all elements."""
    seen = placer.seen(op)
    (value,) = seen.inputs
    dims = seen.dims(1, "dim", len(value.shape))
    if not any(value.placement.split[dim] for dim in dims):
        return False
    total = replace(placer.graph.values[op.outputs[0]], name=placer.new_name("total"), label="total")
    args = (op.args[0], tuple(sorted(dims)), seen.argument(2, "keepdim", False))
    adding = Op("aten.sum.dim_IntList", args, (), (total.name,), op.where)
    placer.apply(adding, RULES["aten.sum.dim_IntList"](Seen(adding, seen.inputs, (total,), placer.sizes)), [total])
    _divide(placer, op, total.name, Mul(*(value.shape[dim] for dim in dims)))
    return True


def mean_loss(place: int) -> Expansion:
    """A pairwise loss whose reduction is its argument `place`: a mean over split dims is a sum, divided."""

    def expand(placer: Placer, op: Op) -> bool:
        seen = placer.seen(op)
        if seen.integer(place, "reduction", MEAN) != MEAN:
            return False
        total = replace(placer.graph.values[op.outputs[0]], name=placer.new_name("total"), label="total")
        args = (*op.args[:place], *(None,) * (place - len(op.args)), SUM, *op.args[place + 1 :])
        adding = Op(op.target, args, (), (total.name,), op.where)
        placer.apply(adding, RULES[op.target](Seen(adding, seen.inputs, (total,), placer.sizes)), [total])
        _divide(placer, op, total.name, Mul(*seen.inputs[0].shape))
        return True

    return expand


def new_filled(fill: float | None) -> Expansion:
    """A new tensor of a given shape, for which another is the pattern: of that nothing but its dtype is needed."""

    def expand(placer: Placer, op: Op) -> bool:
        value = placer.graph.values[op.outputs[0]]
        made = op.args[2] if fill is None else fill
        placer.by_rule(Op("aten.full", (value.shape, made), (("dtype", value.dtype),), op.outputs, op.where))
        return True

    return expand


def _divide(placer: Placer, op: Op, total: str, count: Expr) -> None:
    division = Op("aten.div.Tensor", (Ref(total), count), (), op.outputs, op.where)
    rank = len(placer.values[total].shape)
    names = tuple(f"d{dim}" for dim in range(rank))
    placer.apply(division, Rule((names,), (names,), ((0,),)))


def attention(placer: Placer, op: Op) -> bool:
    return _attention_of_split_positions(placer, op) or _attention_of_shared_heads(placer, op)


def _attention_of_split_positions(placer: Placer, op: Op) -> bool:
    """Each rank takes some of the heads of all positions, and what it makes of them goes home to its own positions.

    Jacobs et al., DeepSpeed Ulysses, 2023, arXiv 2309.14509.
    """
    given = [placer.values[name] for name in op.inputs]
    query, key = given[:2]
    if len(query.shape) != 4:
        return False
    samples, heads, positions, _ = query.placement.split
    over = (*heads, *positions)
    parts = placer.plan.mesh.size(over)
    if not positions or len(given) > 3 or not placer.divides(query.shape[1], parts):
        return False
    if placer.divides(key.shape[1], parts):
        spread = Placement((samples, over, (), ()))
        inner = replace(op, args=(*(Ref(placer.coerce(x.name, spread, op.where)) for x in given), *op.args[3:]))
    elif key.placement.split[1] == heads:
        spread = Ref(placer.coerce(query.name, Placement((samples, over, (), ())), op.where))
        inner = _without_sharing(op, spread, *(_repeated(placer, op, x, query, positions) for x in given[1:]))
    else:
        return False
    result = placer.graph.values[op.outputs[0]]
    inner = replace(inner, outputs=(placer.new_name(result.name),))
    (made,) = placer.apply(inner, RULES[op.target](placer.seen(op)), [replace(result, name=inner.outputs[0])])
    made = placer.values[made.name] = replace(made, dims=(*made.dims[:2], query.dims[2], made.dims[3]))
    (move,) = moves_between(made.placement, Placement((samples, heads, positions, ())))
    placer.add_collective(move, made, replace(made, name=result.name, placement=move.after), op.where)
    return True


def _attention_of_shared_heads(placer: Placer, op: Op) -> bool:
    """Query heads are split and the key and value heads that they share are not: each rank takes those it needs."""
    query, key, value = (placer.values[name] for name in op.inputs[:3])
    axes = query.placement.split[1]
    if not axes or key.shape[1] == query.shape[1] or key.placement.split[1] == axes:
        return False
    parts = placer.plan.mesh.size(axes)
    if placer.sizes.value(key.shape[1], 0) % parts == 0 and placer.sizes.value(key.shape[1], 1) % parts == 0:
        return False
    whole_heads = replace(query, placement=Placement((query.placement.split[0], (), (), ())))
    own = (_repeated(placer, op, shared, whole_heads, axes) for shared in (key, value))
    placer.by_rule(_without_sharing(op, Ref(query.name), *own))
    return True


def _repeated(placer: Placer, op: Op, shared: Value, query: Value, axes: Axes) -> Ref:
    """A key or value head for each of the query heads that the rank has once these are split over `axes` as well."""
    samples, heads, _, _ = query.placement.split
    source = placer.coerce(shared.name, Placement((samples, heads, (), ()), replicated=axes), op.where)
    made = replace(
        placer.values[source],
        name=placer.new_name(shared.name),
        shape=(shared.shape[0], query.shape[1], *shared.shape[2:]),
        placement=Placement((samples, (*heads, *axes), (), ())),
    )
    args = (Ref(source), Group(axes), Part(query.shape[1], (*heads, *axes)), query.shape[1] / shared.shape[1])
    placer.append(Op("moec.runtime.heads.repeat_for", args, (), (made.name,), op.where), [made])
    return Ref(made.name)


def _without_sharing(op: Op, query: Ref, key: Ref, value: Ref) -> Op:
    """Attention in which every query head has a key and value head of its own."""
    kwargs = tuple((key, given) for key, given in op.kwargs if key != "enable_gqa")
    return replace(op, args=(query, key, value, *op.args[3:]), kwargs=kwargs)


def _rename(placer: Placer, value: Value, op: Op) -> None:
    """The last operator gives the result that the traced one gave."""
    (output,) = op.outputs
    last = placer.items.pop()
    assert isinstance(last, Op) and last.outputs == (value.name,)
    placer.append(
        replace(last, outputs=op.outputs), [replace(value, name=output, label=placer.graph.values[output].label)]
    )


EXPANSIONS: dict[str, Expansion] = {
    "aten.embedding": embedding,
    "aten.cross_entropy_loss": cross_entropy,
    "aten.mean": mean,
    "aten.mean.dim": mean,
    "aten.mse_loss": mean_loss(2),
    "aten.l1_loss": mean_loss(2),
    "aten.huber_loss": mean_loss(2),
    "aten.smooth_l1_loss": mean_loss(2),
    "aten.binary_cross_entropy_with_logits": mean_loss(4),
    "aten.scaled_dot_product_attention": attention,
    "aten.new_zeros": new_filled(0.0),
    "aten.new_ones": new_filled(1.0),
    "aten.new_full": new_filled(None),
    "moec.route": route,
    "moec.dispatch": dispatch,
    "moec.grouped_linear": grouped_linear,
    "moec.collect": collect,
}

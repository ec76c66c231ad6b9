"""Routing whose groups span shards, or that drops nothing: rows are ragged, and how many go where is data.

Rows keep the logical shape [experts, groups, capacity, hidden] of the static buffers; split over `groups` means that
every rank has the rows of its own tokens, split over `experts` that it has all rows of its own experts.
"""

from dataclasses import replace

import torch
from sympy import Integer

from moec.compiler.place import ROWS, Placer
from moec.compiler.placement import Axes, Move, Placement, moves_between
from moec.compiler.program import Argument, Group, Op, Ref, Routing, Value, Where, refs, whole
from moec.compiler.rules import RULES
from moec.compiler.rules.rule import Rule

EXPERTS, GROUPS, HIDDEN = 0, ROWS, 3
"""Dims of the rows of experts."""

_ROUTING = "moec.runtime.routing."


def route(placer: Placer, op: Op) -> bool:
    logits = placer.values[op.inputs[0]]
    _, top_k, capacity, group, softmax_first = op.args
    samples, positions, _ = placer.settled(logits).split
    if not _ragged(capacity, group, samples, positions):
        return False
    prob, expert, place = op.outputs
    both = Rule((("b", "t", None),), (("b", "t", None), ("b", "t", None)))
    chosen = (prob, expert) if capacity is None else (placer.new_name("prob"), placer.new_name("expert"))
    made = [replace(placer.graph.values[of], name=name) for of, name in zip(op.outputs[:2], chosen, strict=True)]
    args = (Ref(logits.name), top_k, softmax_first)
    values = placer.apply(Op(f"{_ROUTING}choose", args, (), chosen, op.where), both, made)
    if capacity is None:
        placer.values[place] = replace(values[1], name=place)  # nothing reads it
        return True
    before = _rows_before(placer, op, values[1], str(group), samples, positions)
    args = (*(Ref(value.name) for value in values), Ref(before), capacity)
    tokens = ("b", "t", None)
    rule = Rule((tokens, tokens, ("b", None)), (tokens, tokens, tokens), ((0,),))
    placer.apply(Op(f"{_ROUTING}drop", args, (), op.outputs, op.where), rule)
    return True


def _rows_before(placer: Placer, op: Op, expert: Value, group: str, samples: Axes, positions: Axes) -> str:
    """How many rows every expert gets before my tokens: a scan over the ranks that share my routing groups."""
    count = placer.graph.values[op.inputs[0]].shape[-1]
    shape = (expert.shape[0], count)
    counts = whole(placer.new_name("counts"), shape, torch.int64, label="counts")
    tally = Op(f"{_ROUTING}tally", (Ref(expert.name), count), (), (counts.name,), op.where)
    (counts,) = placer.apply(tally, Rule((("b", "t", None),), (("b", None),)), [counts])
    over = (*(samples if group == "per_microbatch" else ()), *positions)
    width = Integer(placer.plan.mesh.size(over))
    everyone = whole(placer.new_name("everyone"), (width, *shape), torch.int64, label="everyone")
    everyone = everyone.placed(Placement(((), samples, ())))
    placer.add_collective(Move("gather_counts", over, everyone.placement, None), counts, everyone, op.where)
    before = whole(placer.new_name("before"), shape, torch.int64, label="before").placed(Placement((samples, ())))
    inside = Group(samples) if group == "per_microbatch" and samples else ""
    args = (Ref(everyone.name), group, inside, Group(positions) if positions else "")
    placer.append(Op(f"{_ROUTING}rows_before", args, (), (before.name,), op.where), [before])
    return before.name


def dispatch(placer: Placer, op: Op) -> bool:
    x, expert, place = (placer.values[name] for name in op.inputs)
    _, _, _, experts, capacity, group = op.args
    samples, positions, _ = (
        mine or theirs for mine, theirs in zip(expert.placement.split, x.placement.split, strict=True)
    )
    if not _ragged(capacity, group, samples, positions):
        _fill_slots(placer, op)
        return True
    kept = _kept(placer, op, place, capacity)
    rows = placer.graph.values[op.outputs[0]]
    counts = whole(placer.new_name("counts"), (rows.shape[0],), torch.int64, label="counts")
    args = (Ref(x.name), Ref(expert.name), kept, experts)
    tokens = ("b", "t", None)
    masks = (tokens,) if isinstance(kept, Ref) else ()
    rule = Rule((("b", "t", "h"), tokens, *masks), ((None, "b", None, "h"), (None,)), ((0,),))
    rows, counts = placer.apply(
        Op(f"{_ROUTING}sort_rows", args, (), (*op.outputs, counts.name), op.where), rule, [rows, counts]
    )
    samples, positions, _ = placer.values[_sorting(placer, expert).inputs[1]].placement.split  # as they are read
    split = ((), (*samples, *positions), (), rows.placement.split[3])
    partial = tuple(axis for axis in rows.placement.partial if axis not in positions)
    rows = replace(rows, placement=replace(rows.placement, split=split, partial=partial), ragged=counts.name)
    placer.values[rows.name] = rows
    placer.values[counts.name] = counts.placed(Placement(((),)))
    return True


def _fill_slots(placer: Placer, op: Op) -> None:
    """Buffers of a static size. Their slots are numbered within the shard, so they are made of what is there."""

    def with_slots(final: Op) -> Op:
        x, expert, place, experts, capacity, group = final.args
        slot = _slots(placer, (expert, place, experts, capacity, group), op.where)
        return replace(final, target=f"{_ROUTING}fill_slots", args=(x, slot, experts, capacity, group))

    placer.apply(op, RULES[op.target](placer.seen(op)), finish=with_slots)


def _read_slots(placer: Placer, op: Op) -> None:
    experts, _, room, _ = placer.values[op.inputs[0]].shape

    def with_slots(final: Op) -> Op:
        rows, prob, expert, place, group = final.args
        slot = _slots(placer, (expert, place, experts, room, group), op.where)
        return replace(final, target=f"{_ROUTING}read_slots", args=(rows, prob, slot))

    placer.apply(op, RULES[op.target](placer.seen(op)), finish=with_slots)


def _slots(placer: Placer, args: tuple[Argument, ...], where: Where) -> Ref:
    """The slots of these choices under these types, numbered once."""
    target = f"{_ROUTING}slots"
    made = next((op for op in placer.items if isinstance(op, Op) and (op.target, op.args) == (target, args)), None)
    if made is not None:
        return Ref(made.outputs[0])
    expert, _ = (placer.values[name] for name in refs(args))
    slot = replace(expert, name=placer.new_name("slot"), label="slot")
    placer.append(Op(target, args, (), (slot.name,), where), [slot])
    return Ref(slot.name)


def grouped_linear(placer: Placer, op: Op) -> bool:
    rows = placer.values[op.inputs[0]]
    if not rows.ragged:
        return False

    def with_counts(final: Op) -> Op:
        source = placer.values[final.inputs[0]]
        return replace(final, target=f"{_ROUTING}grouped_linear_ragged", args=(*final.args, Ref(source.ragged)))

    rule = Rule((("e", "g", None, "k"), ("e", "n", "k")), (("e", "g", None, "n"),), ((0, 1),))
    placer.apply(op, rule, finish=with_counts)
    return True


def collect(placer: Placer, op: Op) -> bool:
    rows, prob, expert, _ = (placer.values[name] for name in op.inputs)
    if not rows.ragged:
        _read_slots(placer, op)
        return True
    _, sorted_by, kept, _ = _sorting(placer, expert).args
    expert = placer.values[refs(sorted_by)[0]]
    samples, positions, _ = expert.placement.split
    source = _home(placer, rows, op.where)
    hidden = source.placement.split[HIDDEN]
    differently = {*source.placement.partial, *source.placement.replicated, *hidden}
    weights = Placement((samples, positions, ()), replicated=tuple(differently))
    prob_name = placer.coerce(prob.name, weights, op.where)
    args = (Ref(source.name), Ref(prob_name), Ref(expert.name), kept, rows.shape[EXPERTS])
    output = placer.graph.values[op.outputs[0]]
    made = replace(
        output,
        placement=Placement((samples, positions, hidden), source.placement.partial, source.placement.replicated),
        dims=(*expert.dims[:2], None),
        differentiable=source.differentiable or prob.differentiable,
    )
    placer.append(Op(f"{_ROUTING}collect_rows", args, (), op.outputs, op.where), [made])
    return True


def coerce_rows(placer: Placer, value: Value, target: Placement, where: Where) -> str:
    """Ragged rows under another type: at their experts' ranks, or gathered, with the last dim as it should be."""
    known = placer.known_version(value.name, target)
    if known is None:
        known = _out(placer, value, target, where).name
        placer.version(value.name, target, known)
    return known


def _out(placer: Placer, value: Value, target: Placement, where: Where) -> Value:
    """Over every axis of the experts: send, or keep one's own of what all have. Then gather what all need."""
    now = _shared(placer, value, target, where)
    owners = target.split[EXPERTS][len(value.placement.split[EXPERTS]) :]
    while owners:
        sends = owners[0] in now.placement.split[GROUPS]
        run = _leading(owners, now.placement.split[GROUPS], sends)
        now = _send(placer, now, run, where) if sends else _own(placer, now, run, where)
        owners = owners[len(run) :]
    rest = tuple(axis for axis in now.placement.split[GROUPS] if axis not in target.split[GROUPS])
    now = _gather(placer, now, rest, where) if rest else now
    left = target.replicated if value.differentiable else _without(now.placement.replicated, target.split[HIDDEN])
    split = (*now.placement.split[:HIDDEN], target.split[HIDDEN])
    return _turned(placer, now, Placement(split, target.partial, left), where)


def _turned(placer: Placer, value: Value, target: Placement, where: Where) -> Value:
    """Rows under another type over axes whose ranks have the same rows: their last dim is like any other."""
    now = value
    for move in moves_between(value.placement, target):
        made = replace(now, name=placer.new_name(value.name), placement=move.after, kind="activation")
        placer.add_collective(replace(move, dim=-1) if move.dim == HIDDEN else move, now, made, where)
        now = made
    return now


def _without(axes: Axes, gone: Axes) -> Axes:
    return tuple(axis for axis in axes if axis not in gone)


def _shared(placer: Placer, value: Value, target: Placement, where: Where) -> Value:
    """I -> R on the axes over which ranks use the rows differently."""
    different = {*target.replicated, *target.split[EXPERTS]}
    axes = tuple(axis for axis in different if value.placement.letter(axis) == "I")
    if not axes or not value.differentiable:
        return value
    placement = replace(value.placement, replicated=(*value.placement.replicated, *axes))
    made = replace(value, name=placer.new_name(value.name), placement=placement)
    placer.add_collective(Move("share", tuple(sorted(axes)), placement, "all_reduce"), value, made, where)
    return made


def _send(placer: Placer, value: Value, axes: Axes, where: Where) -> Value:
    counts = placer.values[value.ragged]
    parts = Integer(placer.plan.mesh.size(axes))
    arrivals = whole(placer.new_name("arrivals"), (parts, counts.shape[0] / parts), torch.int64, label="arrivals")
    placer.add_collective(Move("exchange_counts", axes, arrivals.placement, None), counts, arrivals, where)
    routing = Routing("send", axes, counts.name, arrivals.name)
    made = _moved(placer, value, axes, routing, owned=True)
    placer.add_collective(Move("send_rows", axes, made.placement, "return_rows"), value, made, where, routing=routing)
    return _counted(placer, made, arrivals, where)


def _gather(placer: Placer, value: Value, axes: Axes, where: Where) -> Value:
    counts = placer.values[value.ragged]
    width = Integer(placer.plan.mesh.size(axes))
    everyone = whole(placer.new_name("everyone"), (width, *counts.shape), torch.int64, label="everyone")
    placer.add_collective(Move("gather_counts", axes, everyone.placement, None), counts, everyone, where)
    routing = Routing("gather", axes, counts.name, everyone.name)
    made = _moved(placer, value, axes, routing, owned=False)
    placer.add_collective(
        Move("gather_rows", axes, made.placement, "scatter_rows"), value, made, where, routing=routing
    )
    return _counted(placer, made, everyone, where)


def _own(placer: Placer, value: Value, axes: Axes, where: Where) -> Value:
    """A local choice: autograd puts zeros for the rest."""
    counts = placer.values[value.ragged]
    parts = Integer(placer.plan.mesh.size(axes))
    mine = whole(placer.new_name("counts"), (counts.shape[0] / parts,), torch.int64, label="counts")
    made = _moved(placer, value, axes, Routing("own", axes, counts.name), owned=True)
    made = replace(made, ragged=mine.name)
    args = (Ref(value.name), Ref(counts.name), Group(axes))
    placer.append(Op("moec.runtime.local_experts.own_rows", args, (), (made.name, mine.name), where), [made, mine])
    return made


def _moved(placer: Placer, value: Value, axes: Axes, routing: Routing, owned: bool) -> Value:
    """The rows after one exchange: of the rank's own experts, or everyone's."""
    split = list(value.placement.split)
    split[GROUPS] = tuple(axis for axis in split[GROUPS] if axis not in axes)
    if owned:
        split[EXPERTS] = (*split[EXPERTS], *axes)
    left = tuple(axis for axis in value.placement.replicated if axis not in axes)
    replicated = left if owned else (*left, *axes)
    placement = Placement(tuple(split), value.placement.partial, replicated)
    name = placer.new_name(value.name)
    return replace(value, name=name, placement=placement, routing=(*value.routing, routing), kind="activation")


def _counted(placer: Placer, rows: Value, by_rank: Value, where: Where) -> Value:
    """Rows of each expert after an exchange: those from all ranks."""
    counts = whole(placer.new_name("counts"), by_rank.shape[1:], torch.int64, label="counts")
    placer.append(Op("aten.sum.dim_IntList", (Ref(by_rank.name), (0,)), (), (counts.name,), where), [counts])
    rows = replace(rows, ragged=counts.name)
    placer.values[rows.name] = rows
    return rows


def _home(placer: Placer, value: Value, where: Where) -> Value:
    """Undo every exchange, the last first."""
    now = value
    while now.routing:
        *before, routing = now.routing
        if routing.kind == "gather":
            now = _turned(placer, now, _summand(now.placement, routing.axes), where)
        split = list(now.placement.split)
        owned = routing.kind in ("send", "own")
        if owned:
            split[EXPERTS] = split[EXPERTS][: -len(routing.axes)]
        partial = tuple(axis for axis in now.placement.partial if axis not in routing.axes)
        if routing.kind == "own":
            partial = (*partial, *routing.axes)
        else:
            split[GROUPS] = (*split[GROUPS], *routing.axes)
        left = tuple(axis for axis in now.placement.replicated if axis not in routing.axes)
        made = replace(
            now,
            name=placer.new_name(value.name),
            placement=Placement(tuple(split), partial, left),
            ragged=routing.counts,
            routing=tuple(before),
        )
        if routing.kind == "own":
            args = (Ref(now.name), Ref(routing.counts), Group(routing.axes))
            placer.append(Op("moec.runtime.local_experts.place_rows", args, (), (made.name,), where), [made])
        elif routing.kind == "send":
            move = Move("return_rows", routing.axes, made.placement, "send_rows")
            placer.add_collective(move, now, made, where, routing=routing)
        else:
            move = Move("scatter_rows", routing.axes, made.placement, "gather_rows")
            placer.add_collective(move, now, made, where, routing=routing)
        now = made
    return now


def _summand(placement: Placement, axes: Axes) -> Placement:
    """The same, but a summand over these axes."""
    split = tuple(_without(of_dim, axes) for of_dim in placement.split)
    partial = (*_without(placement.partial, axes), *axes)
    return Placement(split, partial, _without(placement.replicated, axes))


def _ragged(capacity: object, group: object, samples: Axes, positions: Axes) -> bool:
    """Does a routing group lie in several shards, or is there no bound on its rows?"""
    return capacity is None or bool(positions) or (group == "per_microbatch" and bool(samples))


def _kept(placer: Placer, op: Op, place: Value, capacity: object) -> Ref | None:
    """Which choices have a row: those that come before the capacity."""
    if capacity is None:
        return None
    target = Placement(place.placement.split)
    found = placer.known_version(place.name, replace(target, highest=("kept",)))
    if found is None:
        kept = whole(placer.new_name("kept"), place.shape, torch.bool, label="kept").placed(target)
        placer.append(Op("aten.lt.Scalar", (Ref(place.name), capacity), (), (kept.name,), op.where), [kept])
        placer.version(place.name, replace(target, highest=("kept",)), kept.name)
        found = kept.name
    return Ref(found)


def _sorting(placer: Placer, expert: Value) -> Op:
    """The dispatch by these choices, which reads them split as the tokens are."""
    origin = placer.origin(expert.name)
    return next(
        op
        for op in placer.items
        if isinstance(op, Op) and op.target == f"{_ROUTING}sort_rows" and placer.origin(op.inputs[1]) == origin
    )


def _leading(axes: Axes, others: Axes, inside: bool) -> Axes:
    """The major axes up to the first that is not among others, or with `inside` false up to the first that is."""
    run: list[str] = []
    for axis in axes:
        if (axis in others) != inside:
            break
        run.append(axis)
    return tuple(run)

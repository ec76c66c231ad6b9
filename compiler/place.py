"""Gives every value of a unit its type on every axis, and puts one coercion where two types meet.

Works through the operators in order. What a rule leaves open is decided so: a dim that a weight splits is split; else
what the activations bring; a summand stays one as long as the operators are linear in it, and is then reduced to what
the plan says of its dims. A coercion is made once per value and target type and shared by all its readers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from sympy import Expr

from moec.compiler.placement import Axes, Move, Placement, moves_between
from moec.compiler.program import Argument, Collective, Graph, Op, Ref, Value, Where
from moec.compiler.rules import RULES, Rule, Seen
from moec.compiler.sizes import Sizes
from moec.dsl.diagnostics import Diagnostic, PlanError
from moec.dsl.plan import Plan

Item = Op | Collective

CONSTANT = {"aten.detach", *(f"aten.{name}_like" for name in ("zeros", "ones", "full"))}
"""Operators through which no gradient flows."""

ROWS = 1
"""Dim of a ragged value that its rows lie along: how many are where is data."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A unit's operators and the collectives between them, in order, over typed values."""

    inputs: tuple[tuple[str, str], ...]  # name in the graph, name here
    outputs: tuple[str, ...]
    weights: Mapping[str, Axes]  # value -> the axes over which its gradient is a partial sum
    names: Mapping[str, str]  # value -> name in the module
    items: tuple[Item, ...]
    values: Mapping[str, Value]


def place(
    graph: Graph,
    inputs: Sequence[Value],
    plan: Plan,
    sizes: Sizes,
    dims: Mapping[str, tuple[str | None, ...]],
    shared: Mapping[str, Axes],
) -> Placed:
    """Type a unit whose inputs have the types of `inputs`; `dims` are the logical dims of its weights by value.

    `shared` are axes over which other readers of a weight use it differently, by value.
    Ensures: no operator reads a value of a type that its rule does not accept.
    Raises PlanError for operators without a rule.
    """
    placer = Placer(graph, plan, sizes)
    for name, given in zip(graph.inputs, inputs, strict=True):
        own = graph.values[name]
        placer.values[name] = replace(given, name=name, label=own.label or given.label)
    for name, _ in graph.weights:
        placer.add_weight(name, dims[name], shared.get(name, ()))
    for op in graph.ops:
        placer.operator(op)
    outputs = tuple(placer.settled_output(name) for name in graph.outputs)
    if placer.missing:
        raise PlanError(placer.missing)
    uneven = {name: placer.summed[name] for name, uses in placer.uses.items() if len(set(uses)) > 1}
    if uneven and any(set(axes) - set(shared.get(name, ())) for name, axes in uneven.items()):
        return place(graph, inputs, plan, sizes, dims, {**shared, **uneven})
    names = dict(graph.weights)
    used = {name for item in placer.items for name in (item.inputs if isinstance(item, Op) else (item.source,))}
    weights = {name: placer.summed[name] for name in names if name in used or name in outputs}
    read = _inputs_as_read(placer, graph.inputs, used)
    return Placed(read, outputs, weights, names, tuple(placer.items), placer.values)


def planned_axes(plan: Plan, dim: str | None) -> Axes:
    """The axes that the plan gives to a logical dim, those of one rank left out."""
    return tuple(axis for axis in plan.axes_of(dim) if plan.mesh.size((axis,)) > 1) if dim else ()


def planned_split(plan: Plan, dims: Sequence[str | None]) -> tuple[Axes, ...]:
    """The axes that split each of these dims of one tensor; an axis that is given to two splits the first."""
    taken: set[str] = set()
    split: list[Axes] = []
    for dim in dims:
        split.append(tuple(axis for axis in planned_axes(plan, dim) if axis not in taken))
        taken |= set(split[-1])
    return tuple(split)


def _inputs_as_read(placer: "Placer", inputs: tuple[str, ...], used: set[str]) -> tuple[tuple[str, str], ...]:
    """(input, name under which it is read): a model's input may be read under other types than its own."""
    read: list[tuple[str, str]] = []
    for name in inputs:
        names = [
            n for n, value in placer.values.items() if value.kind == "input" and placer.origin(n) == name and n in used
        ]
        read += [(name, n) for n in (names if placer.values[name].kind == "input" else [name])]
    return tuple(read)


@dataclass(slots=True)
class Placer:
    """The state of placing one unit. Rules that become several operators use its methods (rules/expand_*.py)."""

    graph: Graph
    plan: Plan
    sizes: Sizes
    values: dict[str, Value] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)
    summed: dict[str, Axes] = field(default_factory=dict)
    uses: dict[str, list[Axes]] = field(default_factory=dict)
    missing: list[Diagnostic] = field(default_factory=list)
    _versions: dict[tuple[str, Placement], str] = field(default_factory=dict)
    _origin: dict[str, str] = field(default_factory=dict)
    _roots: dict[str, tuple[str, ...]] = field(default_factory=dict)  # what follows from weights alone: from which
    _count: int = 0

    # ---- Operators.

    def operator(self, op: Op) -> None:
        """Place one traced operator, as it is or as the several that it is on shards."""
        from moec.compiler.rules.expand import EXPANSIONS

        if any(name not in self.values for name in op.inputs):
            for name in op.outputs:
                self.values.pop(name, None)
            return  # what it reads has no rule, which is reported
        expand = EXPANSIONS.get(op.target)
        if expand is None or not expand(self, op):
            self.by_rule(op)

    def by_rule(self, op: Op) -> None:
        if op.target not in RULES:
            self._report_missing(op)
            return
        self.apply(op, RULES[op.target](self.seen(op)))

    def seen(self, op: Op) -> Seen:
        outputs = tuple(self.values.get(name) or self.graph.values[name] for name in op.outputs)
        return Seen(op, tuple(self.values[name] for name in op.inputs), outputs, self.sizes)

    def apply(
        self,
        op: Op,
        rule: Rule,
        outputs: Sequence[Value] | None = None,
        finish: Callable[[Op], Op] = lambda op: op,
    ) -> tuple[Value, ...]:
        """Coerce the inputs to what the rule needs, add the operator (as `finish` leaves it), and type its outputs."""
        inputs = [self.values[name] for name in op.inputs]
        made = list(outputs or (self.graph.values[name] for name in op.outputs))
        types = _Types(self, inputs, rule, made)
        sources = [
            self.coerce(value.name, target, op.where) for value, target in zip(inputs, types.targets(), strict=True)
        ]
        self.items.append(finish(_reading(op, sources)))
        names = _logical_names(rule, inputs)
        for source, factors in zip(sources, rule.inputs, strict=True):
            self._name_dims(source, tuple(names.get(factor) if factor else None for factor in factors))
        read = inputs[1:] if op.target == "aten.copy" else inputs  # of the first nothing but its shape
        differentiable = any(value.differentiable for value in read)
        ragged = next((self.values[name] for name, value in zip(sources, inputs, strict=True) if value.ragged), None)
        typed = []
        for value, factors in zip(made, rule.outputs, strict=True):
            carries = differentiable and value.dtype.is_floating_point and op.target not in CONSTANT
            placement = types.output(factors)
            typed.append(
                replace(
                    value,
                    kind="activation",
                    placement=placement if carries else placement.settled(),
                    dims=tuple(names.get(factor) if factor else None for factor in factors),
                    differentiable=carries,
                    ragged=ragged.ragged if ragged and len(value.shape) > 2 else "",
                    routing=ragged.routing if ragged and len(value.shape) > 2 else (),
                )
            )
            self.values[value.name] = typed[-1]
            if carries and all(self._follows_from_weights(source) for source in inputs):
                roots = [root for source in inputs for root in self._roots.get(source.name, ())]
                self._roots[value.name] = tuple(dict.fromkeys(roots))
        return tuple(typed)

    def _follows_from_weights(self, value: Value) -> bool:
        """Is it what weights alone, or what is the same on all ranks and has no gradient, make it?"""
        return value.name in self._roots or (not value.differentiable and not value.placement.axes)

    def _name_dims(self, name: str, dims: tuple[str | None, ...]) -> None:
        """Dims of an operand that have no name yet are called as the operator's other operands call them."""
        origin = self.origin(name)
        for version in {name, *(made for (of, _), made in self._versions.items() if of == origin)}:
            value = self.values[version]
            if None in value.dims and value.kind == "activation" and len(value.dims) == len(dims):
                known = tuple(dim or other for dim, other in zip(value.dims, dims, strict=True))
                self.values[version] = replace(value, dims=known)

    def append(self, op: Op, outputs: Sequence[Value]) -> None:
        """Add an operator whose inputs and outputs are typed already."""
        self.items.append(op)
        for value in outputs:
            self.values[value.name] = value

    def new_name(self, base: str) -> str:
        """A name that no value has."""
        self._count += 1
        return f"{base}__{self._count}"

    def axes_of(self, dim: str | None) -> Axes:
        """The axes that the plan gives to a logical dim, those of one rank left out."""
        return planned_axes(self.plan, dim)

    # ---- Weights.

    def add_weight(self, name: str, dims: tuple[str | None, ...], shared: Axes) -> None:
        """A weight is split as the plan says of its dims; an axis that splits two of them splits the first."""
        value = self.graph.values[name]
        split = planned_split(self.plan, dims)
        taken = {axis for axes in split for axis in axes}
        trained = value.kind == "weight" and value.dtype.is_floating_point
        different = tuple(axis for axis in shared if axis not in taken)
        placement = Placement(split, replicated=different if trained else ())
        self.values[name] = replace(value, placement=placement, dims=dims, differentiable=trained)
        self.summed[name] = tuple(sorted(different, key=self._order))
        if trained:
            self._roots[name] = (name,)

    # ---- Coercions.

    def coerce(self, name: str, target: Placement, where: Where, reason: str = "") -> str:
        """The value under another type: made once, from the version of it that is cheapest to start from."""
        value = self.values[name]
        if not value.differentiable:
            target = target.settled()
        if name in self._roots:
            return self._coerce_weight(value, target, where)
        if value.placement == target:
            return name
        origin = self._origin.get(name, name)
        made = self._versions.get((origin, target))
        if made is not None:
            return made
        if value.kind == "input":
            return self._read(value, target, origin)
        if value.ragged:
            from moec.compiler.rules.expand_routing import coerce_rows

            return coerce_rows(self, value, target, where)
        starts = [name, *(version for (o, _), version in self._versions.items() if o == origin)]
        start = min(starts, key=lambda start: self._bytes(self.values[start], target))
        result = self._move(self.values[start], target, origin, where, reason)
        self._versions[origin, target] = result
        return result

    def version(self, name: str, target: Placement, made: str) -> None:
        """Note that `made` is the value `name` under another type."""
        origin = self._origin.get(name, name)
        self._versions[origin, target] = made
        self._origin[made] = origin

    def origin(self, name: str) -> str:
        """The value whose data this is under another type."""
        return self._origin.get(name, name)

    def known_version(self, name: str, target: Placement) -> str | None:
        return self._versions.get((self._origin.get(name, name), target))

    def _move(self, value: Value, target: Placement, origin: str, where: Where, reason: str) -> str:
        now = value
        for move in moves_between(value.placement, target):
            after = replace(now, name=self.new_name(origin), kind="activation", placement=move.after)
            self._origin[after.name] = origin
            self._versions.setdefault((origin, move.after), after.name)
            self.add_collective(move, now, after, where, reason)
            now = after
        return now.name

    def add_collective(
        self, move: Move, source: Value, output: Value, where: Where, reason: str = "", routing=None
    ) -> None:
        if not source.differentiable:
            move = replace(move, backward=None)
        self.values[output.name] = output
        self.items.append(
            Collective(move, source.name, output.name, reason or self._reason(source, move), where, routing)
        )

    def _coerce_weight(self, value: Value, target: Placement, where: Where) -> str:
        """Where ranks use what follows from weights alone differently, they sum the weights' gradients at the end."""
        shared = tuple(sorted(axis for axis in target.replicated if value.placement.letter(axis) == "I"))
        for root in self._roots[value.name]:
            self.uses.setdefault(root, []).append(shared)
            self.summed[root] = tuple(sorted({*self.summed[root], *shared}, key=self._order))
        left = replace(target, replicated=tuple(axis for axis in target.replicated if axis not in shared))
        if value.placement == left:
            return value.name
        made = self._versions.get((value.name, left))
        if made is None:
            hint = _short_name(dict(self.graph.weights).get(value.name, ""))
            named = replace(value, label="", hint=hint)
            made = self._versions[value.name, left] = self._move(named, left, value.name, where, "")
        return made

    def _read(self, value: Value, target: Placement, origin: str) -> str:
        """An input is read as it is needed: no rank talks."""
        made = replace(value, name=self.new_name(origin), placement=target)
        self.values[made.name] = made
        self._origin[made.name] = origin
        self._versions[origin, target] = made.name
        return made.name

    def _order(self, axis: str) -> int:
        return [atom.name for atom in self.plan.mesh.atoms].index(axis)

    def _bytes(self, value: Value, target: Placement) -> float:
        """What the moves send, roughly: reductions count twice."""
        total, now = 0.0, value
        for move in moves_between(value.placement, target):
            after = now.placed(move.after)
            sent = 0.0 if move.silent else max(self.local_elements(now), self.local_elements(after))
            total += sent * (2 if move.kind.startswith("all_reduce") else 1)
            total += sent if move.backward == "all_reduce" else 0
            now = after
        return total

    def local_elements(self, value: Value) -> float:
        parts = prod(self.plan.mesh.size(axes) for axes in value.placement.split)
        return prod(float(self.sizes.value(size, 0)) for size in value.shape) / parts

    def elements(self, value: Value) -> float:
        return prod(float(self.sizes.value(size, 0)) for size in value.shape)

    def _reason(self, value: Value, move: Move) -> str:
        return ""

    # ---- What leaves the unit.

    def settled_output(self, name: str) -> str:
        """Summands are reduced, and what is used differently becomes the same again, before it leaves the unit."""
        value = self.values.get(name)
        if value is None:
            return name
        if not value.shape and value.placement.partial:  # the loss stays a summand
            return self.coerce(name, replace(value.placement, replicated=()), Where())
        return self.coerce(name, self.settled(value), Where())

    def settled(self, value: Value, free: Sequence[bool] | None = None) -> Placement:
        """The type of a value after its sums are made: split where the plan splits a dim of it, else the same."""
        placement = replace(value.placement, replicated=())
        for axis in value.placement.partial:
            dim = self.wanted_dim(value, axis, free)
            placement = replace(placement, partial=tuple(other for other in placement.partial if other != axis))
            if dim is not None:
                split = list(placement.split)
                split[dim] = (*split[dim], axis)
                placement = replace(placement, split=tuple(split))
        return placement

    def wanted_dim(self, value: Value, axis: str, free: Sequence[bool] | None = None) -> int | None:
        """The dim of a value that the plan splits over an axis, if it divides and may be split here."""
        for dim, name in enumerate(value.dims):
            axes = self.axes_of(name)
            movable = not value.ragged or dim > ROWS  # rows of experts go home by the way they came alone
            if axis in axes and movable and (free is None or free[dim]):
                have = value.placement.split[dim]
                parts = self.plan.mesh.size((*have, axis))
                if have == axes[: axes.index(axis)] and self.divides(value.shape[dim], parts):
                    return dim
        return None

    def divides(self, size: Expr, parts: int) -> bool:
        """Whether a size splits evenly, in the plan and in the small sizes that are verified."""
        return all(self.sizes.value(size, sizing) % parts == 0 for sizing in (0, 1))

    # ---- What cannot be placed.

    def _report_missing(self, op: Op) -> None:
        place = f"{op.where.file}:{op.where.line}: {op.where.code}" if op.where.file else f"in `{op.where.path}`"
        help = (place, "write it with other operators, or ask for a rule: they are a line each")
        if all(known.headline.find(f"`{op.target}`") < 0 for known in self.missing):
            self.missing.append(Diagnostic("E409", f"moec has no rule for the operator `{op.target}`", (), help))


def _short_name(weight: str) -> str:
    """What a weight is called where it is read under another type: `up` for up.weight, `up_bias` for up.bias."""
    *_, module, last = ["", *weight.split(".")]
    return module if last == "weight" and module else f"{module}_{last}".strip("_")


class _Types:
    """Which axes split which factor of one operator, and where a summand stays one."""

    def __init__(self, placer: Placer, inputs: Sequence[Value], rule: Rule, outputs: Sequence[Value]) -> None:
        self._placer, self._inputs, self._rule, self._outputs = placer, inputs, rule, outputs
        self.split: dict[str, Axes] = {}
        self._decide_splits()
        self._kept: dict[str, tuple[int, ...]] = {}  # axis -> inputs that are summands on it
        self._decide_summands()
        contracted = {axis for factor in rule.contracted for axis in self.split.get(factor, ())}
        self._decide_terms(contracted)
        self.partial = tuple({*contracted, *self._kept})
        self.varying = {axis for axes in self.split.values() for axis in axes} | set(self.partial)
        self.replicated = tuple(
            {axis for value in inputs if value.differentiable for axis in value.placement.replicated} - self.varying
        )

    def output(self, factors: Sequence[str | None]) -> Placement:
        split = tuple(self.split.get(factor, ()) if factor else () for factor in factors)
        return Placement(split, self.partial, self.replicated)

    def targets(self) -> list[Placement]:
        """The type that each input must have."""
        targets = []
        for place, factors in enumerate(self._rule.inputs):
            split = tuple(self.split.get(factor, ()) if factor else () for factor in factors)
            own = {axis for axes in split for axis in axes}
            partial = tuple(axis for axis in self.partial if place in self._kept.get(axis, ()))
            shared = [axis for axis in (*self.varying, *self.replicated) if axis not in own and axis not in partial]
            targets.append(Placement(split, partial, tuple(shared)))
        return targets

    def _decide_splits(self) -> None:
        """A split weight decides, then the activations, the larger first; who splits a dim further is followed."""

        def weight_first(place: int) -> tuple[bool, float, int]:
            value = self._inputs[place]
            splits = value.kind == "weight" and any(value.placement.split)
            return not splits, -self._placer.elements(value), place

        taken: set[str] = set()
        for place in sorted(range(len(self._inputs)), key=weight_first):
            value, factors = self._inputs[place], self._rule.inputs[place]
            for dim, (factor, axes) in enumerate(zip(factors, value.placement.split, strict=True)):
                have = self.split.get(factor, ()) if factor else ()
                if factor is None or axes[: len(have)] != have:
                    continue
                counted = bool(value.ragged) and dim == ROWS  # how many rows are where is data, in any order
                more = axes[len(have) :]
                more = tuple(axis for axis in more if axis not in taken) if counted else _leading(more, taken)
                if more and (counted or self._divides(factor, (*have, *more))):
                    self.split[factor] = (*have, *more)
                    taken |= set(more)

    def _divides(self, factor: str, axes: Axes) -> bool:
        """Weights may be padded; what else is split must divide, also where another dim has the factor."""
        parts = self._placer.plan.mesh.size(axes)
        for values, all_factors in ((self._inputs, self._rule.inputs), (self._outputs, self._rule.outputs)):
            for value, factors in zip(values, all_factors, strict=True):
                for size, other in zip(value.shape, factors, strict=True):
                    if other == factor and not self._placer.divides(size, parts):
                        padded = any(axes == p for v in self._inputs if v.kind == "weight" for p in v.placement.split)
                        if not padded and not self._padded(factor, axes):
                            return False
        return True

    def _padded(self, factor: str, axes: Axes) -> bool:
        """Is the factor a dim that is split unevenly already?"""
        return any(
            other == factor and have == axes
            for value, factors in zip(self._inputs, self._rule.inputs, strict=True)
            for other, have in zip(factors, value.placement.split, strict=True)
        )

    def _decide_summands(self) -> None:
        """On every axis with a summand: does it stay one, and if not, what does it become?"""
        axes = {axis for value in self._inputs for axis in value.placement.partial}
        for axis in sorted(axes, key=self._placer._order):
            summands = tuple(n for n, value in enumerate(self._inputs) if axis in value.placement.partial)
            split_here = any(axis in split for split in self.split.values())
            if not split_here and self._stays(axis, summands):
                self._kept[axis] = summands
            elif not split_here:
                self._split_summand(axis, summands)

    def _stays(self, axis: str, summands: tuple[int, ...]) -> bool:
        terms = self._rule.terms
        if not terms or any(not any(n in term for term in terms) for n in summands):
            return False
        for term in terms:
            count = sum(n in summands for n in term)
            if count > 1 or (count == 0 and self._cheapest(term) is None):
                return False
        return True

    def _cheapest(self, term: tuple[int, ...]) -> int | None:
        """The factor of a product that can be zero on all ranks but the first without delaying a large sum."""
        largest = max(self._placer.elements(value) for value in self._outputs)
        place = min(term, key=lambda n: self._placer.elements(self._inputs[n]))
        value = self._inputs[place]
        return place if value.kind == "weight" or self._placer.elements(value) < largest else None

    def _decide_terms(self, contracted: set[str]) -> None:
        """On an axis where one term is a summand, all are: the others are kept by the first rank only."""
        for axis in sorted({*contracted, *self._kept}, key=self._placer._order):
            kept = list(self._kept.get(axis, ()))
            for term in self._rule.terms:
                sums = any(
                    factor in self._rule.contracted and axis in self.split.get(factor, ())
                    for n in term
                    for factor in self._rule.inputs[n]
                    if factor
                )
                if not sums and not any(n in kept for n in term):
                    kept.append(min(term, key=lambda n: self._placer.elements(self._inputs[n])))
            if kept or axis in self._kept:
                self._kept[axis] = tuple(kept)

    def _split_summand(self, axis: str, summands: tuple[int, ...]) -> None:
        """Reduce it to a slice where the plan splits one of its dims, and the operator lets that dim be split."""
        for place in summands:
            factors = self._rule.inputs[place]
            free = [factor is not None and factor not in self._rule.contracted for factor in factors]
            dim = self._placer.wanted_dim(self._inputs[place], axis, free)
            factor = factors[dim] if dim is not None else None
            if dim is not None and factor is not None:
                have = self._inputs[place].placement.split[dim]
                if self.split.get(factor, ()) == have:
                    self.split[factor] = (*have, axis)
                    return


def _leading(axes: Axes, taken: set[str]) -> Axes:
    """The major axes up to one that is taken."""
    free: list[str] = []
    for axis in axes:
        if axis in taken:
            break
        free.append(axis)
    return tuple(free)


def _logical_names(rule: Rule, inputs: Sequence[Value]) -> dict[str, str]:
    """Logical dims by factor; what activations say goes before what weights say."""
    names: dict[str, str] = {}
    for value, factors in sorted(zip(inputs, rule.inputs, strict=True), key=lambda pair: pair[0].kind == "weight"):
        for factor, dim in zip(factors, value.dims, strict=True):
            if factor is not None and dim is not None:
                names.setdefault(factor, dim)
    return names


def _reading(op: Op, names: Sequence[str]) -> Op:
    """The operator with its inputs, one by one, under these names: one value may be read under two types."""
    left = iter(names)

    def put(argument: Argument) -> Argument:
        if isinstance(argument, Ref):
            return Ref(next(left))
        return tuple(put(item) for item in argument) if isinstance(argument, tuple) else argument

    args = tuple(put(argument) for argument in op.args)
    return replace(op, args=args, kwargs=tuple((key, put(value)) for key, value in op.kwargs))

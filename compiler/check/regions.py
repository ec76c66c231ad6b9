"""What the check knows of a region: which of its results carry a gradient, and over which groups its ranks differ."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_

from moec.compiler.check.terms import Term
from moec.compiler.placement import Axes
from moec.compiler.program import Argument, Compute, Group, Op, Unit
from moec.compiler.rules import RULES, Seen
from moec.compiler.sizes import Sizes


@dataclass(frozen=True, slots=True)
class Region:
    """A function of a stage file that computes and does not talk."""

    name: str
    stage: int
    takes: int
    results: tuple[bool, ...]  # for each, whether it carries a gradient
    groups: frozenset[Axes]  # of whose coordinates it makes use
    behind: tuple["Behind", ...]  # for each argument, what its gradient is made of


@dataclass(frozen=True, slots=True)
class Behind:
    """What a gradient is made of: gradients of results that carry one, and arguments of the region, by number."""

    given: frozenset[int] = frozenset()
    args: frozenset[int] = frozenset()

    def __or__(self, other: "Behind") -> "Behind":
        return Behind(self.given | other.given, self.args | other.args)


def region_of(name: str, stage: int, compute: Compute, unit: Unit, sizes: Sizes) -> Region:
    grads = tuple(unit.values[output].differentiable for output in compute.outputs)
    groups = frozenset(axes for op in compute.ops for axes in _groups((op.args, tuple(v for _, v in op.kwargs))))
    return Region(name, stage, len(compute.inputs) + len(compute.weights), grads, groups, _behind(compute, unit, sizes))


def _behind(compute: Compute, unit: Unit, sizes: Sizes) -> tuple[Behind, ...]:
    """Backward through the operators. One that is linear in an operand needs, for its gradient, only the factors."""
    args = (*compute.inputs, *compute.weights)
    made_of: dict[str, frozenset[int]] = {name: frozenset((place,)) for place, name in enumerate(args)}
    for op in compute.ops:
        union = frozenset().union(*(made_of[name] for name in op.inputs))
        made_of |= dict.fromkeys(op.outputs, union)
    carried = [name for name in compute.outputs if unit.values[name].differentiable]
    found = {name: Behind(frozenset((place,))) for place, name in enumerate(carried)}
    for op in reversed(compute.ops):
        arriving = [found[name] for name in op.outputs if name in found]
        if not arriving:
            continue
        given = reduce(or_, arriving)
        for place, name in enumerate(op.inputs):
            partners = _partners(op, place, unit, sizes)
            needed = frozenset().union(*(made_of[op.inputs[other]] for other in partners))
            found[name] = found.get(name, Behind()) | given | Behind(args=needed)
    return tuple(found.get(name, Behind()) for name in args)


def _partners(op: Op, place: int, unit: Unit, sizes: Sizes) -> Iterable[int]:
    """The operands that the gradient of one of them depends on."""
    everyone = range(len(op.inputs))
    if op.target not in RULES:
        return everyone
    inputs, outputs = (tuple(unit.values[name] for name in names) for names in (op.inputs, op.outputs))
    terms = RULES[op.target](Seen(op, inputs, outputs, sizes)).terms
    mine = [term for term in terms if place in term]
    return {other for term in mine for other in term if other != place} if mine else everyone


def _groups(argument: Argument) -> list[Axes]:
    if isinstance(argument, Group):
        return [argument.axes]
    return [axes for item in argument for axes in _groups(item)] if isinstance(argument, tuple) else []


def results_of(region: Region, args: tuple[Term, ...]) -> tuple[Term, ...]:
    """What a region makes of its arguments."""
    terms = args[0].terms
    what = region.name, region.stage
    return tuple(terms.make("run", (*what, place), args, grad=grad) for place, grad in enumerate(region.results))


def gradients_of(
    region: Region, args: tuple[Term, ...], given: tuple[Term, ...], add: Callable[[Term, Term], None]
) -> tuple[Term, ...]:
    """Gradients of the activations among the arguments; those of weights are handed to `add`."""
    terms = args[0].terms
    found: list[Term] = []
    weights: set[int] = set()
    for place, arg in enumerate(args):
        if not arg.grad or arg.number in weights:
            continue
        gradient = terms.make("gradient", (region.name, region.stage, place, len(given)), (*given, *args))
        if arg.weight:
            weights.add(arg.number)
            add(arg, gradient)
        else:
            found.append(gradient)
    return tuple(found)


def behind(region: Region, gradient: Term) -> tuple[Term, ...]:
    """The parts of a gradient term that the gradient is made of."""
    place, count = gradient.what[2:]
    assert isinstance(place, int) and isinstance(count, int)
    given, args = gradient.parts[:count], gradient.parts[count:]
    places = [n for n, arg in enumerate(args) if arg is args[place]]
    all_behind = reduce(or_, (region.behind[n] for n in places))
    return (*(given[n] for n in sorted(all_behind.given)), *(args[n] for n in sorted(all_behind.args)))


Regions = Mapping[str, Region]
"""Of one stage, by name."""

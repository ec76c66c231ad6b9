"""What the check knows of a region: which of its results carry a gradient, and over which groups its ranks differ."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_

from moec.compiler.check.terms import Term, Terms
from moec.compiler.placement import Axes
from moec.compiler.program import Argument, Compute, Group, Op, Unit
from moec.compiler.rules import RULES, Seen
from moec.compiler.sizes import Sizes


@dataclass(frozen=True, slots=True)
class Behind:
    """What a value of a region is made of: arguments and gradients of results, by number; coordinates in groups."""

    args: frozenset[int] = frozenset()
    given: frozenset[int] = frozenset()
    groups: frozenset[Axes] = frozenset()
    reached: frozenset[int] = frozenset()  # of the arguments, those to which a gradient flows back

    def __or__(self, other: "Behind") -> "Behind":
        given, groups = self.given | other.given, self.groups | other.groups
        return Behind(self.args | other.args, given, groups, self.reached | other.reached)


NOTHING = Behind()


@dataclass(frozen=True, slots=True)
class Region:
    """A function of a stage file that computes and does not talk."""

    name: str
    stage: int
    takes: int
    results: tuple[bool, ...]  # for each, whether it carries a gradient
    made_of: tuple[Behind, ...]  # for each result
    gradients: tuple[Behind, ...]  # for each argument, what its gradient is made of


def region_of(name: str, stage: int, compute: Compute, unit: Unit, sizes: Sizes) -> Region:
    grads = tuple(unit.values[output].differentiable for output in compute.outputs)
    args = (*compute.inputs, *compute.weights)
    made_of = {name: Behind(frozenset((place,)), reached=frozenset((place,))) for place, name in enumerate(args)}
    for op in compute.ops:
        made = reduce(or_, (made_of[name] for name in op.inputs), Behind(groups=_groups(op)))
        constant = replace(made, reached=frozenset())
        made_of |= {out: made if unit.values[out].differentiable else constant for out in op.outputs}
    gradients = _gradients(compute, unit, sizes, made_of)
    results = tuple(made_of[output] for output in compute.outputs)
    return Region(name, stage, len(args), grads, results, tuple(gradients.get(name, NOTHING) for name in args))


def _gradients(compute: Compute, unit: Unit, sizes: Sizes, made_of: Mapping[str, Behind]) -> dict[str, Behind]:
    """Backward through the operators. One that is linear in an operand needs, for its gradient, only the factors."""
    carried = [name for name in compute.outputs if unit.values[name].differentiable]
    found = {name: Behind(given=frozenset((place,))) for place, name in enumerate(carried)}
    for op in reversed(compute.ops):
        arriving = [found[name] for name in op.outputs if name in found and unit.values[name].differentiable]
        if not arriving:
            continue
        given = reduce(or_, arriving, Behind(groups=_groups(op)))
        for place, name in enumerate(op.inputs):
            partners = (made_of[op.inputs[other]] for other in _partners(op, place, unit, sizes))
            found[name] = reduce(or_, partners, found.get(name, NOTHING) | given)
    return found


def _partners(op: Op, place: int, unit: Unit, sizes: Sizes) -> Iterable[int]:
    """The operands that the gradient of one of them depends on."""
    everyone = range(len(op.inputs))
    if op.target not in RULES:
        return everyone
    inputs, outputs = (tuple(unit.values[name] for name in names) for names in (op.inputs, op.outputs))
    terms = RULES[op.target](Seen(op, inputs, outputs, sizes)).terms
    mine = [term for term in terms if place in term]
    return {other for term in mine for other in term if other != place} if mine else everyone


def _groups(op: Op) -> frozenset[Axes]:
    """The groups in which an operator looks at its rank's coordinate."""

    def of(argument: Argument) -> Iterator[Axes]:
        if isinstance(argument, Group):
            yield argument.axes
        for item in argument if isinstance(argument, tuple) else ():
            yield from of(item)

    return frozenset(of((op.args, tuple(value for _, value in op.kwargs))))


def results_of(region: Region, args: tuple[Term, ...], terms: Terms) -> tuple[Term, ...]:
    """What a region makes of its arguments."""
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


def sources(region: Region, term: Term) -> "Sources":
    """What a result or a gradient of a region is made of: groups, and parts of its term."""
    if term.kind == "run":
        place = term.what[2]
        assert isinstance(place, int)
        made = region.made_of[place]
        return made.groups, tuple([term.parts[n] for n in sorted(made.args)])
    given, args, places = _taken_apart(term)
    made = reduce(or_, (region.gradients[n] for n in places))
    return made.groups, (*(given[n] for n in sorted(made.given)), *(args[n] for n in sorted(made.args)))


Sources = tuple[frozenset[Axes], tuple[Term, ...]]


def worked_on(region: Region, gradient: Term) -> tuple[Term, list[Sources]]:
    """The argument that a gradient is of, and what each result is made of that carries a gradient to it."""
    _, args, places = _taken_apart(gradient)
    made = [made for made, grad in zip(region.made_of, region.results, strict=True) if grad and made.reached & places]
    return args[min(places)], [(each.groups, tuple([args[n] for n in sorted(each.args)])) for each in made]


def _taken_apart(gradient: Term) -> tuple[tuple[Term, ...], tuple[Term, ...], frozenset[int]]:
    """Gradients of results, arguments, and the places of the argument that it is of: of a weight all, they add up."""
    place, count = gradient.what[2:]
    assert isinstance(place, int) and isinstance(count, int)
    given, args = gradient.parts[:count], gradient.parts[count:]
    weight = args[place] if args[place].weight else None
    return given, args, frozenset(n for n, arg in enumerate(args) if n == place or arg is weight)


Regions = Mapping[str, Region]
"""Of one stage, by name."""

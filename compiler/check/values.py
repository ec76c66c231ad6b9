"""Compares what a rank's step leaves behind with what it must: gradients, losses and counts, term by term."""

from collections import Counter
from collections.abc import Iterator, Sequence

from moec.compiler.check.execute import Effects
from moec.compiler.check.faults import Fault
from moec.compiler.check.terms import Site, Term


def check_values(effects: Effects, wanted: Effects) -> Iterator[Fault]:
    """At most one fault of each kind: the first difference is the cause, and the others follow from it."""
    if effects.updates != 1:
        yield Fault("values", f"the step updates the weights {effects.updates} times")
    losses, counts = ([x for x, _ in pairs] for pairs in (effects.losses, effects.counts))
    yield from _first("the loss", losses, [x for x, _ in wanted.losses])
    yield from _first("the count of valid targets", counts, [x for x, _ in wanted.counts])
    for (_, same), (_, true) in [*zip(effects.losses, wanted.losses, strict=False)][:1]:
        if same != true:
            yield Fault("values", f"the loss is counted once a group `{same}`, and `{true}` has the same loss")
    for names in dict.fromkeys((*wanted.gradients, *effects.gradients)):
        what = f"the gradient of {' and '.join(names)}"
        found = [*_first(what, effects.gradients.get(names, []), wanted.gradients.get(names, []))]
        if found:
            yield from found
            return


def _first(what: str, mine: Sequence[Term], true: Sequence[Term]) -> Iterator[Fault]:
    left, missing = _without(mine, true), _without(true, mine)
    if left and missing:
        fault = _difference(left[0], missing[0], what)
        yield fault
    elif left:
        yield Fault("values", f"{what} has a summand too many", left[0].site)
    elif missing:
        yield Fault("values", f"{what} lacks a summand, {missing[0]}", missing[0].site)


def _without(terms: Sequence[Term], others: Sequence[Term]) -> list[Term]:
    taken = Counter(term.number for term in others)
    left = []
    for term in terms:
        if taken[term.number] > 0:
            taken[term.number] -= 1
        else:
            left.append(term)
    return left


def _difference(mine: Term, true: Term, what: str) -> Fault:
    """The first difference on the way down: below it the two are made of the same."""
    site = mine.site
    while True:
        site = mine.site or site
        alike = mine.kind == true.kind and mine.what == true.what and len(mine.parts) == len(true.parts)
        if not alike:
            return _at(mine, true, what, site)
        differing = [pair for pair in zip(mine.parts, true.parts, strict=True) if pair[0] is not pair[1]]
        if not differing:
            return Fault("values", f"{what} differs", site)
        mine, true = min(differing, key=lambda pair: pair[0].number)


def _at(mine: Term, true: Term, what: str, site: Site | None) -> Fault:
    if mine in true.parts:
        return Fault("values", f"{true} is missing after this line, on the way to {what}", mine.site or site)
    if true in mine.parts:
        return Fault("values", f"{mine} is too much here, on the way to {what}", site)
    if mine.kind == true.kind:
        return Fault("values", f"{mine} stands in place of {true}, on the way to {what}", site)
    return Fault("values", f"{mine} stands where {true} must, on the way to {what}", site)

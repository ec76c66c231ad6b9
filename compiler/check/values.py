"""Compares what a rank's step leaves behind with what it must, and finds the instruction that is to blame.

What the program makes is known before any rank runs. So the first term that a rank makes and the program does not is
the first instruction that does something else; what is known and stands in the wrong place shows in what reads it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from moec.compiler.check.execute import Counted, Effects
from moec.compiler.check.faults import Fault
from moec.compiler.check.terms import Site, Term, Terms


def check_values(effects: Effects, wanted: Effects) -> Iterator[Fault]:
    """At most one fault of each kind: the first difference is the cause, and the others follow from it."""
    if len(effects.updates) != 1:
        site = effects.updates[-1] if effects.updates else None
        yield Fault("values", f"the step updates the weights {len(effects.updates)} times", site)
    yield from _counted("the loss", effects.losses, wanted.losses)
    yield from _counted("the count of valid targets", effects.counts, wanted.counts)
    for names in dict.fromkeys((*wanted.gradients, *effects.gradients)):
        what = f"the gradient of {' and '.join(names)}"
        found = _first(what, effects.gradients.get(names, []), wanted.gradients.get(names, []))
        if found is not None:
            yield found
            return


def _counted(what: str, mine: Sequence[Counted], true: Sequence[Counted]) -> Iterator[Fault]:
    found = _first(what, [each.term for each in mine], [each.term for each in true])
    sites = [each.site for each in mine]
    if found is not None:
        yield Fault("values", found.message, sites[-1] if sites else found.site)
    elif mine and mine[0].same != true[0].same:
        message = f"{what} is counted once in a group `{mine[0].same}`, and the same on `{true[0].same}`"
        yield Fault("values", message, sites[0])


def _first(what: str, mine: Sequence[Term], true: Sequence[Term]) -> Fault | None:
    left, missing = _without(mine, true), _without(true, mine)
    if left and missing:
        return Fault("values", f"{what} has the summand {left[0]} in place of {missing[0]}", left[0].site)
    if left:
        return Fault("values", f"{what} has the summand {left[0]} too often", left[0].site)
    if missing:
        return Fault("values", f"{what} lacks the summand {missing[0]}", missing[0].site)
    return None


def _without(terms: Sequence[Term], others: Sequence[Term]) -> list[Term]:
    taken = Counter(term.number for term in others)
    left = []
    for term in terms:
        if taken[term.number] > 0:
            taken[term.number] -= 1
        else:
            left.append(term)
    return left


def first_unknown(terms: Terms, known: int) -> Fault | None:
    """The first value that the program, which made the first `known` terms, does not make."""
    everything = terms.everything()
    sums = [Counter(part.number for part in term.parts) for term in everything[:known] if term.kind == "sum"]
    suspect = (term for term in everything[known:] if term.site is not None and _is_new(term, known))
    unknown = next((term for term in suspect if not _is_part_of(term, sums)), None)
    if unknown is None:
        return None
    alike = [term for term in everything[:known] if _same_instruction(term, unknown)]
    if alike:
        return _wrong_part(unknown, max(alike, key=lambda term: _common(term, unknown)))
    other = next((term for term in everything[:known] if term.parts == unknown.parts and term.kind != "sum"), None)
    instead = f", and {other} of it is what the program has" if other is not None else ""
    return Fault("values", f"the program has no {unknown} here{instead}", unknown.site)


def _is_new(term: Term, known: int) -> bool:
    return all(part.number < known for part in term.parts)


def _is_part_of(term: Term, sums: Sequence[Counter[int]]) -> bool:
    """Is it a sum that others are added to?"""
    return term.kind == "sum" and any(Counter(part.number for part in term.parts) <= whole for whole in sums)


def _same_instruction(term: Term, other: Term) -> bool:
    return term.kind == other.kind and term.what == other.what and len(term.parts) == len(other.parts)


def _common(term: Term, other: Term) -> int:
    return sum(x is y for x, y in zip(term.parts, other.parts, strict=True))


def _wrong_part(mine: Term, true: Term) -> Fault:
    if {part.number for part in mine.parts} == {part.number for part in true.parts}:
        return Fault("values", f"what {mine} reads is swapped", mine.site)
    differing = [(a, b) for a, b in zip(mine.parts, true.parts, strict=True) if a is not b]
    a, b = differing[0]
    if b.kind == "sum" and a in b.parts:
        left = max((part for part in b.parts if part is not a), key=lambda part: part.number)
        return Fault("values", f"what this makes is not added to what {mine} reads", left.site or mine.site)
    if a in b.parts and a.site is not None:
        return Fault("values", f"{b} is missing after this line, before {mine} reads it", _after(a.site, mine.site))
    if b in a.parts:
        return Fault("values", f"{a} is too much: {mine} reads {b}", a.site)
    made = f" of {a.site}" if a.site is not None else ""
    return Fault("values", f"{mine} must read {b}, and reads {a}{made}", mine.site)


def _after(site: Site, reader: Site | None) -> Site:
    """The line that made a value, as it is reached by whoever reads it."""
    return site if reader is None or site.file != reader.file else Site(site.file, site.line, site.text, reader.callers)

"""Which ranks have different data: a second way to know what must be summed, which reads no types.

A value differs along an axis if it was made of something that does: a slice of a weight or of an input, or a rank's own
coordinate. Sums and gathers over an axis end that, exchanges and slices begin it. A gradient differs as what it is made
of does, that of the loss perhaps where every rank counts its own. And where ranks do different work with what they all
have, the gradients of it are parts of one sum, even if they should be alike.

From this alone it follows over what the gradient of a weight must be summed: along what its contributions differ
between ranks that have the same weight.

The gradient of what differs may differ too where nothing that it is made of does: ranks that have the mean over all
rows have the same gradient of it, and each of its own rows has a part of it, even if these parts are alike; but of a
summand each has the whole. Without types these cannot be told apart: along such axes a gradient differs perhaps, and
nothing is said.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from moec.compiler.check.execute import Counted, Effects
from moec.compiler.check.faults import Fault
from moec.compiler.check.regions import Region, sources, worked_on
from moec.compiler.check.terms import Site, Term, below
from moec.compiler.placement import Axes

Varied = frozenset[str]
NOTHING: Varied = frozenset()


@dataclass(frozen=True, slots=True)
class Differs:
    """Along which axes a value is not the same on all ranks: surely, and perhaps (these too)."""

    surely: Varied = NOTHING
    perhaps: Varied = NOTHING

    def __or__(self, other: "Differs") -> "Differs":
        return Differs(self.surely | other.surely, self.perhaps | other.perhaps)

    def __sub__(self, other: "Differs") -> "Differs":
        """Along what this differs and the other does not."""
        return Differs(self.surely - other.perhaps, self.perhaps - other.surely)

    @staticmethod
    def along(axes: Varied) -> "Differs":
        return Differs(axes, axes)

    @staticmethod
    def any(found: "Iterable[Differs]") -> "Differs":
        every = list(found)
        return Differs(
            NOTHING.union(*[each.surely for each in every]), NOTHING.union(*[each.perhaps for each in every])
        )


SAME = ("all_reduce", "all_reduce_max", "all_gather", "gather_counts", "gather_rows")
"""After these all members have the same."""

DIFFERENT = "reduce_scatter all_to_all exchange_counts send_rows return_rows scatter_rows take spread first".split()
"""After these every member has its own."""


@dataclass(slots=True)
class Variance:
    """Of all terms of a step. `groups` names the axes of each group, `weights` those that split each weight."""

    groups: Mapping[str, Varied]
    weights: Mapping[str, Varied]
    regions: Mapping[tuple[str, int], Region]  # by name and stage
    seed: Varied  # along which every rank counts a loss of its own
    _known: dict[int, Differs] = field(default_factory=dict)
    _of_data: set[int] = field(default_factory=set)  # terms that are more than a number that all ranks know
    faults: list[Fault] = field(default_factory=list)

    def of(self, term: Term) -> Differs:
        for part in below(term, self._known):
            self._known[part.number] = self._find(part)
            of_data = part.kind in ("weight", "input", "seed") or any(
                each.number in self._of_data for each in part.parts
            )
            if of_data and not self._is_zero(part):
                self._of_data.add(part.number)
        return self._known[term.number]

    def _find(self, term: Term) -> Differs:
        parts = Differs.any(self._known[part.number] for part in term.parts)
        match term.kind:
            case "seed":
                return Differs(perhaps=self.seed)
            case "weight":
                return Differs.along(NOTHING.union(*(self.weights.get(str(name), NOTHING) for name in term.what)))
            case "input":
                return Differs.along(frozenset(axis for axes in term.what[1] for axis in axes))  # pyright: ignore[reportGeneralTypeIssues]
            case "run":
                return self._made_of(*sources(self._region(term), term))
            case "gradient":
                return self._made_of(*sources(self._region(term), term)) | self._by_work(self._region(term), term)
            case kind if kind in SAME:
                return self._alike(term, parts)
            case kind if kind in DIFFERENT:
                if kind == "reduce_scatter":
                    self._alike(term, parts)
                return parts | Differs.along(self.groups[str(term.what[0])])
            case _:
                return parts

    def _is_zero(self, term: Term) -> bool:
        """A gradient to which nothing flows: its argument is only looked at where none is taken."""
        return term.kind == "gradient" and not sources(self._region(term), term)[1]

    def _region(self, term: Term) -> Region:
        return self.regions[term.what[0], term.what[1]]  # pyright: ignore[reportArgumentType]

    def _made_of(self, groups: Iterable[Axes], parts: Iterable[Term]) -> Differs:
        own = frozenset(axis for axes in groups for axis in axes)
        return Differs.along(own) | Differs.any(self._known[part.number] for part in parts)

    def _by_work(self, region: Region, gradient: Term) -> Differs:
        """Along what the results of an argument differ, and it does not; perhaps along what it does."""
        argument, results = worked_on(region, gradient)
        itself = self._known[argument.number]
        return Differs.any(self._made_of(*result) for result in results) - itself | Differs(perhaps=itself.perhaps)

    def _alike(self, term: Term, varied: Differs) -> Differs:
        over = self.groups[str(term.what[0])]
        useless = over - varied.perhaps
        if useless and term.kind != "all_reduce_max" and any(part.number in self._of_data for part in term.parts):
            names = " and ".join(sorted(useless))
            message = f"{term.kind} over {term.what[0]} of what is the same on all ranks of {names}"
            self.faults.append(Fault("gradients", message, term.site))
        return varied - Differs.along(over)


@dataclass(frozen=True, slots=True)
class Stated:
    """What the text says of a weight."""

    split: Varied
    reduce: str
    site: Site  # where it says so


def check_gradients(
    variance: Variance, effects: Effects, stated: Mapping[str, Stated], stages: Varied, nowhere: Site
) -> Iterator[Fault]:
    """Every gradient is summed once, over the axes along which it differs, and over nothing else.

    `nowhere` is where a sum that is missing would be.
    """
    over: dict[str, Differs] = {}
    for names, terms in effects.gradients.items():
        varied = Differs.any(variance.of(term) for term in terms)
        for name in names:
            over[name] = over.get(name, Differs()) | varied
    for name, weight in stated.items():
        wanted = over.get(name, Differs())
        summed = variance.groups.get(weight.reduce, NOTHING) - stages
        missing = wanted.surely - weight.split - stages - summed
        much = summed - (wanted.perhaps - weight.split)
        if missing:
            names = " and ".join(sorted(missing))
            yield Fault(
                "gradients", f"the gradient of {name} differs along {names}, and is not summed over it", weight.site
            )
        if much and name in over:
            names = " and ".join(sorted(much))
            yield Fault(
                "gradients", f"the gradient of {name} is the same along {names}, and is summed over it", weight.site
            )
    families = {weight.reduce for weight in stated.values()} - {""}
    for family in sorted(families | {family for family, _ in effects.reduced}):
        sites = [site for summed, site in effects.reduced if summed == family]
        if len(sites) != 1:
            times = f"{len(sites)} times" if sites else "never"
            yield Fault("gradients", f"the gradients of {family} are summed {times}", sites[-1] if sites else nowhere)


def check_losses(variance: Variance, losses: Sequence[Counted], axes: Varied, what: str) -> Iterator[Fault]:
    """A sum over all ranks counts each summand once: along an axis it differs, or one rank of it counts."""
    for each in losses:
        varied = variance.of(each.term)
        alone = variance.groups.get(each.same, NOTHING) if each.same else NOTHING
        for axis in sorted(axes - varied.perhaps - alone):
            yield Fault("gradients", f"{what} is the same along {axis}, and every rank of it counts it", each.site)
        for axis in sorted(varied.surely & alone):
            yield Fault("gradients", f"{what} differs along {axis}, and only the first rank of it counts it", each.site)

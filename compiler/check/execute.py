"""Runs the emitted text of a rank on terms instead of tensors.

The text itself runs, as it will on the cluster; only what it imports is replaced: a collective is a call that the
engine matches (meet.py), a region is what it makes of its arguments, a tape is a stack.
"""

import builtins
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import CodeType, SimpleNamespace

from moec.compiler.check.faults import Wrong
from moec.compiler.check.regions import Region, Regions, gradients_of, results_of
from moec.compiler.check.terms import Site, Term, Terms
from moec.compiler.program import full_name
from moec.runtime.communicator import WORLD, Slot
from moec.runtime.shard import Weight

Dims = tuple[tuple[str, object], ...]
Talk = Callable[["Call"], object]
"""Blocks the rank until its call has met its peers, and returns what the call gives."""

OPERANDS = {
    **dict.fromkeys(("all_reduce", "all_reduce_max", "all_gather", "reduce_scatter", "all_to_all"), 1),
    **dict.fromkeys(("exchange_counts", "gather_counts"), 1),
    **dict.fromkeys(("send_rows", "return_rows"), 3),
    **dict.fromkeys(("gather_rows", "scatter_rows"), 2),
}
"""Collectives, and how many tensors each takes before the name of its group."""

SILENT = ("take", "spread", "first")


@dataclass(slots=True)
class Call:
    """What a rank asks of others: a collective of a group, or tensors of a peer."""

    kind: str
    group: str = ""
    dims: Dims = ()
    operands: tuple[Term, ...] = ()
    peer: int = -1
    slots: tuple[Slot, ...] = ()
    site: Site | None = None

    def __str__(self) -> str:
        name = (
            self.kind
            if self.peer < 0
            else f"{self.kind} {'with' if self.kind == 'exchange' else 'of'} rank {self.peer}"
        )
        over = f" over {self.group}" if self.group else ""
        return f"{name}{over}{f' at {self.site}' if self.site else ''}"


class StageText:
    """An emitted stage file with its regions and collectives replaced, ready to run for one rank after another."""

    def __init__(self, name: str, text: str, sizes: str, regions: Regions) -> None:
        self.name, self.lines, self.regions = name, text.splitlines(), regions
        self._code = compile(text, name, "exec")
        header: dict[str, object] = {}
        exec(compile(sizes, "sizes.py", "exec"), header)
        self.sizes = SimpleNamespace(**header)
        self.tables = self._loaded({})

    def load(self, names: Mapping[str, object]) -> SimpleNamespace:
        """The file as a module, with its regions and collectives bound to what one rank does."""
        return SimpleNamespace(**self._loaded(names))

    def line_of(self, text: str, further: int = 0) -> Site:
        """The first line that has a text in it, or so many further."""
        found = next((n for n, line in enumerate(self.lines, 1) if text in line), 1)
        found = min(found + further, len(self.lines))
        return Site(self.name, found, self.lines[found - 1].strip())

    def _loaded(self, names: Mapping[str, object]) -> dict[str, object]:
        space = _namespace({"sizes": self.sizes})
        exec(self._code, space)
        space.update(names)
        return space


def _namespace(modules: Mapping[str, object]) -> dict[str, object]:
    """Names for a text whose imports of other emitted files are given."""

    def find(name: str, *args: object, **kwargs: object) -> object:
        return modules[name] if name in modules else builtins.__import__(name, *args, **kwargs)  # pyright: ignore[reportArgumentType]

    return {"__builtins__": {**vars(builtins), "__import__": find}}


def load_rank(code: CodeType, stage: object, number: int) -> dict[str, object]:
    """The names of a rank's file."""
    space = _namespace({f"stage_{number}": stage})
    exec(code, space)
    return space


@dataclass(slots=True)
class Effects:
    """All that a step of one rank leaves behind."""

    losses: list["Counted"] = field(default_factory=list)
    counts: list["Counted"] = field(default_factory=list)
    gradients: dict[tuple[str, ...], list[Term]] = field(default_factory=dict)  # by full name of the weight
    reduced: list[tuple[str, Site | None]] = field(default_factory=list)
    updates: list[Site | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Counted:
    """A summand of the loss or of the valid targets, and the group whose members have the same one."""

    term: Term
    same: str
    site: Site | None = None


class RankRun:
    """One rank on terms. What the text calls `run`, and the functions that it imports."""

    def __init__(
        self, stage: StageText, accumulate: int, terms: Terms, talk: Talk, alone: Callable[[str], bool]
    ) -> None:
        self.stage, self.effects = stage, Effects()
        self.job = SimpleNamespace(accumulate=accumulate)
        self.terms = terms
        self._talk = talk
        self._alone = cache(alone)  # of the ranks that run, is it the only one in a group?
        self._tapes: dict[int, _Tape] = {}
        tables = stage.tables
        self._inputs: Mapping[str, tuple[tuple[str, ...], ...]] = tables.get("INPUTS", {})  # pyright: ignore[reportAttributeAccessIssue]
        self.weights = _weights(terms, tables)
        self._families = dict(named_weights(tables))
        self.tables = _Items(lambda name: terms.make("table", (name,)))
        self.seed = terms.make("seed")

    def names(self) -> dict[str, object]:
        """What replaces the regions and the collectives of the stage's file."""
        found: dict[str, object] = {name: _Function(region, self) for name, region in self.stage.regions.items()}
        for kind, operands in OPERANDS.items():
            found[kind] = self._collective(kind, operands)
        for kind in SILENT:
            found[kind] = self._silent(kind)
        found["all_reduce_together"] = self._together
        found["accumulate"] = self._accumulate
        return found

    # ---- What the text calls.

    def tape(self, i: int) -> "_Tape":
        return self._tapes.setdefault(i, _Tape(self))

    def inputs(self, i: int) -> "_Items":
        trail = self.terms.trail()

        def find(key: str) -> Term:
            term = self.terms.make("input", (key.partition("@")[0], self._inputs[key], i))
            term.trail = term.trail or trail
            return term

        return _Items(find)

    def count_valid(self, counts: Sequence[Term], same: str = "") -> None:
        self.effects.counts += [Counted(count, same, self.site()) for count in counts]
        self._talk(Call("all_reduce", WORLD, (("of", "valid"),), site=self.site()))

    def add_loss(self, x: Term, same: str = "") -> None:
        self.effects.losses.append(Counted(x, same, self.site()))

    def send(self, tensors: Sequence[Term], rank: int) -> None:
        self._talk(Call("send", operands=tuple(tensors), peer=rank, site=self.site()))

    def receive(self, slots: Sequence[Slot], rank: int) -> object:
        return self._talk(Call("receive", peer=rank, slots=tuple(slots), site=self.site()))

    def exchange(self, tensors: Sequence[Term], slots: Sequence[Slot], rank: int) -> object:
        call = Call("exchange", "", (), tuple(tensors), rank, tuple(slots), self.site())
        return self._talk(call)

    def reduce(self, family: str) -> None:
        self.effects.reduced.append((family, self.site()))
        self._talk(Call("all_reduce", family, (("of", "gradients"),), site=self.site()))

    def update(self) -> None:
        for i, tape in self._tapes.items():
            if tape.stack:
                raise Wrong(
                    "values", f"micro-batch {i} has not run backward through {tape.stack[-1].what}", self.site()
                )
        self.effects.updates.append(self.site())
        self._talk(Call("all_reduce", WORLD, (("of", "loss and norm"),), site=self.site()))

    # ---- For the parts of this module.

    def site(self) -> Site | None:
        """The line of the emitted text that is running."""
        return self.terms.here()

    def noted(self, term: Term) -> Term:
        """A term, with the line that made it first."""
        if not term.trail:
            term.trail = self.terms.trail()
        return term

    def add_gradient(self, weight: Term, gradient: Term) -> None:
        summed = {family for family, _ in self.effects.reduced}
        for name in weight.what:
            assert isinstance(name, str)
            if self._families[name].reduce in summed or self.effects.updates:
                raise Wrong("gradients", f"{name} gets a gradient after its family was summed", self.site())
        self.effects.gradients.setdefault(weight.what, []).append(gradient)  # pyright: ignore[reportArgumentType]

    def _collective(self, kind: str, operands: int) -> Callable[..., object]:
        def call(*args: object, **dims: object) -> object:
            *tensors, group = args[: operands + 1]
            return self._met(kind, self._checked(tensors), group, dims)

        return call

    def _met(self, kind: str, tensors: tuple[Term, ...], group: object, dims: Mapping[str, object]) -> object:
        assert isinstance(group, str)
        given = tuple(sorted(dims.items()))
        if not self._alone(group):
            self._talk(Call(kind, group, given, tensors, site=self.site()))
        return self.noted(moved(kind, group, given, tensors))

    def _silent(self, kind: str) -> Callable[..., object]:
        def call(x: Term, group: str, **dims: object) -> object:
            (x,) = self._checked((x,))
            return self.noted(moved(kind, group, tuple(sorted(dims.items())), (x,)))

        return call

    def _together(self, values: Sequence[Term], group: str) -> tuple[Term, ...]:
        values = self._checked(values)
        if not self._alone(group):
            self._talk(Call("all_reduce", group, (("tensors", len(values)),), values, site=self.site()))
        return tuple([self.noted(moved("all_reduce", group, (), (x,))) for x in values])

    def _accumulate(self, weight: Term, gradient: Term) -> None:
        (gradient,) = self._checked((gradient,))
        self.add_gradient(weight, gradient)

    def _checked(self, values: Sequence[object]) -> tuple[Term, ...]:
        found: list[Term] = []
        for value in values:
            if not isinstance(value, Term):
                raise Wrong("values", f"{type(value).__name__} where a tensor is needed", self.site())
            found.append(value)
        return tuple(found)


@dataclass(slots=True)
class _Entry:
    what: str
    region: Region | None
    values: tuple[Term, ...]


class _Function:
    """A region of the text, as it is called or handed to a tape."""

    def __init__(self, region: Region, run: RankRun) -> None:
        self.region, self._run = region, run

    def __call__(self, *args: object) -> object:
        found = self.made(args)
        return found[0] if len(found) == 1 else found

    def made(self, args: Sequence[object]) -> tuple[Term, ...]:
        region = self.region
        if len(args) != region.takes:
            raise Wrong("values", f"`{region.name}` takes {region.takes} tensors, not {len(args)}", self._run.site())
        made = results_of(region, self._run._checked(args), self._run.terms)
        return tuple([self._run.noted(term) for term in made])


class _Tape:
    """As moec.runtime.tape.Tape."""

    def __init__(self, run: RankRun) -> None:
        self.stack: list[_Entry] = []
        self._run = run

    def run(self, function: _Function, *args: Term) -> object:
        found = function.made(args)
        self.stack.append(_Entry(f"`{function.region.name}`", function.region, args))
        return found[0] if len(found) == 1 else found

    def back(self, function: _Function, *given: Term | None) -> object:
        region = function.region
        entry = self._pop(f"`{region.name}`")
        if entry.region is not region:
            raise Wrong("values", f"backward of `{region.name}`, but {entry.what} ran last", self._run.site())
        wanted = sum(region.results)
        if len(given) != wanted:
            message = (
                f"`{region.name}` has {wanted} results that carry a gradient, and {len(given)} gradients are given"
            )
            raise Wrong("values", message, self._run.site())
        zero = self._run.terms.make("zeros")
        cotangents = tuple([zero if gradient is None else gradient for gradient in given])
        found = gradients_of(region, entry.values, self._run._checked(cotangents), self._weight)
        found = tuple([self._run.noted(term) for term in found])
        return found[0] if len(found) == 1 else found or None

    def keep(self, *values: Term) -> None:
        self.stack.append(_Entry("keep", None, values))

    def kept(self) -> object:
        entry = self._pop("kept values")
        if entry.region is not None:
            raise Wrong("values", f"kept values are asked for, but {entry.what} ran last", self._run.site())
        return entry.values[0] if len(entry.values) == 1 else entry.values

    def _pop(self, what: str) -> _Entry:
        if not self.stack:
            raise Wrong("values", f"the backward asks for {what}, and nothing is left on the tape", self._run.site())
        return self.stack.pop()

    def _weight(self, weight: Term, gradient: Term) -> None:
        self._run.add_gradient(weight, self._run.noted(gradient))


class _Items:
    """Tensors by name."""

    def __init__(self, find: Callable[[str], Term]) -> None:
        self._find = find

    def __getitem__(self, name: str) -> Term:
        return self._find(name)


def _weights(terms: Terms, tables: Mapping[str, object]) -> tuple[tuple[SimpleNamespace, ...], ...]:
    """For every unit its instances, each with its weights by key."""
    weights: Mapping[str, Mapping[str, Weight]] = tables["WEIGHTS"]  # pyright: ignore[reportAssignmentType]
    stacked: Mapping[str, Mapping[str, Sequence[str]]] = tables.get("STACKED", {})  # pyright: ignore[reportAssignmentType]
    units: Sequence[tuple[str, Sequence[str]]] = tables["UNITS"]  # pyright: ignore[reportAssignmentType]
    found = []
    for kind, prefixes in units:
        instances = []
        for prefix in prefixes:
            table = weights[kind]
            full = {key: full_name(prefix, weight.name) for key, weight in table.items()}
            values = {key: weight_term(terms, (full[key],), weight.trainable) for key, weight in table.items()}
            for key, parts in stacked.get(kind, {}).items():
                values[key] = weight_term(terms, tuple(full[part] for part in parts), True)
            instances.append(SimpleNamespace(**values))
        found.append(tuple(instances))
    return tuple(found)


def named_weights(tables: Mapping[str, object]) -> Iterator[tuple[str, Weight]]:
    """Full names of all weights of a stage's tables, with what is stated of each."""
    weights: Mapping[str, Mapping[str, Weight]] = tables["WEIGHTS"]  # pyright: ignore[reportAssignmentType]
    units: Sequence[tuple[str, Sequence[str]]] = tables["UNITS"]  # pyright: ignore[reportAssignmentType]
    for kind, prefixes in units:
        for prefix in prefixes:
            for weight in weights[kind].values():
                yield full_name(prefix, weight.name), weight


def moved(kind: str, group: str, dims: Dims, operands: tuple[Term, ...]) -> Term:
    """What a collective or a silent move makes."""
    source = operands[0]
    grad = source.grad and kind not in ("exchange_counts", "gather_counts", "all_reduce_max")
    return source.terms.make(kind, (group, dims), operands, grad=grad)


def weight_term(terms: Terms, names: tuple[str, ...], trained: bool) -> Term:
    """A weight, or several that are read as one."""
    return terms.make("weight", names, (), grad=trained, weight=trained)

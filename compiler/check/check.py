"""Checks the files of a folder of rank programs against the program and against each other."""

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from moec.compiler.check.execute import Counted, Effects, RankRun, StageText, load_rank, named_weights
from moec.compiler.check.expect import Sheet, expected
from moec.compiler.check.faults import CHECKS, Fault, Wrong
from moec.compiler.check.groups import check_ranks, check_slices, varied_axes
from moec.compiler.check.headers import Header, read_header
from moec.compiler.check.meet import Engine, Group
from moec.compiler.check.origin import Origins
from moec.compiler.check.regions import Region, region_of
from moec.compiler.check.schedule import schedule_faults
from moec.compiler.check.tables import check_tables
from moec.compiler.check.terms import Site, Terms
from moec.compiler.check.text import check_text
from moec.compiler.check.values import check_values, first_unknown
from moec.compiler.check.vary import Stated, Variance, Varied, check_gradients, check_losses
from moec.compiler.emit.rank_text import groups_of
from moec.compiler.emit.sizes_text import SizeNames
from moec.compiler.emit.stage_text import StageText as Written
from moec.compiler.emit.stage_text import stage_text
from moec.compiler.emit.types_text import same_count, same_group
from moec.compiler.program import Compute, Program, Stage
from moec.runtime.communicator import WORLD
from moec.runtime.shard import Weight


@dataclass(frozen=True, slots=True)
class Report:
    """What the check found, and how much it went through."""

    ranks: int
    classes: int  # of ranks that take every step together
    terms: int
    seconds: float
    faults: tuple[Fault, ...]

    @property
    def claim(self) -> str:
        """What a check without faults has shown."""
        return (
            f"checked every instruction of all {self.ranks} ranks: calls meet, none waits for ever, each value "
            f"and gradient is what the program says, summed once over the ranks where it differs"
        )

    @property
    def statement(self) -> str:
        return f"{self.claim} ({self.seconds:.1f} s)"


def check(program: Program, files: Mapping[str, str], only: Collection[str] = CHECKS) -> Report:
    """Check all ranks of `files`, name to text, as emit writes them or as they are in a folder.

    `only` are the parts of the check that are to be heard: what another one finds is passed over where the run can go
    on, and ends it without a word where it cannot.
    """
    started = time.perf_counter()
    checking = _Check(program, files, frozenset(only))
    with _no_collections():
        try:
            faults = tuple(checking.faults())
        except Wrong as wrong:
            faults = tuple(checking.heard([wrong.fault]))
    return Report(program.world_size, checking.classes, checking.made, time.perf_counter() - started, faults)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Thousands of terms that all stay make the collector go through torch's objects time and again, for nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(slots=True)
class _Check:
    program: Program
    files: Mapping[str, str]
    only: frozenset[str]
    classes: int = 0
    made: int = 0
    terms: Terms = field(default_factory=Terms)

    def faults(self) -> Iterator[Fault]:
        """Of one kind after the other: what a check finds is not worth telling if an earlier one found something."""
        names = [name for name in sorted(self.files) if name.startswith("rank_")]
        headers = [read_header(name, self.files[name]) for name in names]
        self._texts(headers)
        program, sizes = self.program, SizeNames(self.program)
        written = [stage_text(program, sizes, stage) for stage in program.stages]
        self._ranks(headers, written)
        regions = [_regions(program, stage, text) for stage, text in zip(program.stages, written, strict=True)]
        stages = [self._stage(n, {r.name: r for r in found.values()}) for n, found in enumerate(regions)]
        tables = {n: _weights(stage) for n, stage in enumerate(stages)}
        self._stop_at([*check_tables(program, written, stages), *check_slices(headers, tables)])
        sheets = [
            Sheet(found, text.tables, *self._same(stage))
            for stage, found, text in zip(program.stages, regions, written, strict=True)
        ]
        yield from self._run(headers, stages, sheets)

    def _texts(self, headers: Sequence[Header]) -> None:
        """Nothing runs here before it has been read."""
        shared = [name for name in sorted(self.files) if name == "sizes.py" or name.startswith("stage_")]
        found = [fault for name in shared for fault in check_text(name, self.files[name])]
        for header in _classes(headers):
            found += check_text(header.file, header.schedule, header.line)
        self._stop_at(found)

    def _ranks(self, headers: Sequence[Header], written: Sequence[Written]) -> None:
        mesh = self.program.plan.mesh
        if len(headers) != mesh.world_size:
            raise Wrong("groups", f"there are files of {len(headers)} ranks, and the plan has {mesh.world_size}")
        found = [
            Fault("groups", f"rank {number} runs stage {header.stage}", header.site("import stage_"))
            for number, header in enumerate(headers)
            if header.stage != self.program.stage_of(number)
        ]
        self._stop_at(found)
        groups = [
            groups_of(self.program, stage, text) for stage, text in zip(self.program.stages, written, strict=True)
        ]
        orders = {name: axes for found in groups for name, axes, stages in found if not stages}
        self._stop_at([*check_ranks(mesh, headers, orders)])

    def heard(self, faults: Sequence[Fault]) -> list[Fault]:
        return [fault for fault in faults if fault.check in self.only]

    def _stop_at(self, faults: Sequence[Fault]) -> None:
        """What comes after builds on what they are about. Those that no numbers excuse are told first."""
        found = self.heard(faults)
        if found:
            first = min(found, key=lambda fault: fault.by_numbers)
            raise Wrong(first.check, first.message, first.site, first.by_numbers)

    def _stage(self, number: int, regions: Mapping[str, Region]) -> StageText:
        name = f"stage_{number}.py"
        try:
            return StageText(name, self.files[name], self.files["sizes.py"], regions)
        except Exception as fault:  # whatever its tables do when they are read
            texts = {name: self.files[name].splitlines(), "sizes.py": self.files["sizes.py"].splitlines()}
            raise Wrong("text", f"{type(fault).__name__}: {fault}", _last_line(fault, texts)) from None

    def _same(self, stage: Stage) -> tuple[str, str]:
        program = self.program
        if not program.has_loss(stage):
            return "", ""
        return same_group(program, program.values[program.loss]), same_count(program)

    # ---- What the ranks do.

    def _run(self, headers: Sequence[Header], stages: Sequence[StageText], sheets: Sequence[Sheet]) -> Iterator[Fault]:
        ranks = self._representatives(headers)
        self.terms.texts |= {stage.name: stage.lines for stage in stages}
        self.terms.texts |= {headers[rank].file: headers[rank].text.splitlines() for rank in ranks}
        everyone = tuple(range(len(headers)))

        def groups(rank: int, name: str) -> Group:
            if name == WORLD:
                return everyone
            if name not in headers[rank].groups:
                raise Wrong("groups", f"rank {rank} has no group `{name}`", runs[rank].site())
            return headers[rank].groups[name]

        engine = Engine(groups, Origins(self.program, headers, self.terms.texts))
        runs: dict[int, RankRun] = {}
        programs = {}
        for rank in ranks:
            programs[rank] = self._program(headers[rank], stages[headers[rank].stage], engine, runs)
        wanted = expected(self.program, sheets, self.terms)
        known = len(self.terms)
        ended = engine.run(programs)
        faults = [*ended]
        losses = [loss for run in runs.values() for loss in run.effects.losses]
        variance = self._variance([headers[rank] for rank in ranks], stages, losses)
        classes = _classes([headers[rank] for rank in ranks]) if not ended else []
        for header in classes:  # the loss first: what is wrong of it shows in the gradients of all
            effects = runs[header.rank].effects
            faults += check_values(effects, wanted[header.stage])
            faults += check_losses(variance, effects.losses, self._live, "the loss")
            faults += check_losses(variance, effects.counts, self._live, "the count of valid targets")
        for header in classes:
            faults += self._summed(variance, stages[header.stage], runs[header.rank].effects)
            faults += _held_by_stages(header, headers, stages)
        self.made = len(self.terms)
        faults = self.heard([*variance.faults, *faults])
        causes = self.heard([*self._causes(headers, known)]) if faults else []
        yield from causes
        yield from (fault for fault in faults if not causes or fault.check != "values")

    def _causes(self, headers: Sequence[Header], known: int) -> Iterator[Fault]:
        """To be told first: a schedule that is not its stage's, and the first value that the program lacks."""
        for header in _classes(headers):
            yield from schedule_faults(self.program, header)
        unknown = first_unknown(self.terms, known)
        if unknown is not None:
            yield unknown

    def _representatives(self, headers: Sequence[Header]) -> list[int]:
        """One rank of each stage, side by side, if the ranks of every stage have one schedule; else all ranks."""
        self.classes = len(_classes(headers))
        if self.classes > len(self.program.stages):
            return list(range(len(headers)))
        line = [0]
        while (following := headers[line[-1]].following) is not None:
            line.append(following)
        return line

    def _program(
        self, header: Header, stage: StageText, engine: Engine, runs: dict[int, RankRun]
    ) -> Callable[[], None]:
        """What a rank's greenlet runs."""
        rank = header.rank
        try:
            code = compile(header.text, header.file, "exec")
        except SyntaxError as fault:
            raise Wrong("text", f"no Python: {fault.msg}", Site(header.file, fault.lineno or 1)) from None

        def program() -> None:
            run = runs[rank] = RankRun(
                stage,
                self.program.plan.schedule.accumulate,
                self.terms,
                lambda call: engine.talk(rank, call),
                lambda group: engine.alone(rank, group),
            )
            try:
                step = load_rank(code, stage.load(run.names()), header.stage)["step"]
                step(run)  # pyright: ignore[reportCallIssue]
            except Wrong:
                raise
            except Exception as fault:
                raise Wrong("values", f"{type(fault).__name__}: {fault}", _last_line(fault, self.terms.texts)) from None

        return program

    def _variance(self, headers: Sequence[Header], stages: Sequence[StageText], losses: Sequence[Counted]) -> Variance:
        mesh = self.program.plan.mesh
        groups: dict[str, Varied] = {WORLD: frozenset(atom.name for atom in mesh.atoms)}
        for header in headers:
            for name, ranks in header.groups.items():
                axes = varied_axes(mesh, ranks)
                if axes is None or groups.setdefault(name, axes) != axes:
                    raise Wrong("groups", f"group `{name}` of rank {header.rank} does not lie along axes: {ranks}")
        weights = {name: weight.axes for stage in stages for name, weight in named_weights(stage.tables)}
        regions = {(region.name, n): region for n, stage in enumerate(stages) for region in stage.regions.values()}
        alone = frozenset().union(*(groups.get(loss.same, frozenset()) for loss in losses))
        return Variance(groups, weights, regions, self._live - alone)

    @property
    def _live(self) -> Varied:
        """The axes along which a stage has several ranks."""
        plan = self.program.plan
        return frozenset(atom.name for atom in plan.mesh.atoms if atom.size > 1 and atom.name != plan.pipeline_axis)

    def _summed(self, variance: Variance, stage: StageText, effects: Effects) -> Iterator[Fault]:
        pipeline = self.program.plan.pipeline_axis
        along = frozenset((pipeline,) if pipeline else ())
        trained = [(name, weight) for name, weight in named_weights(stage.tables) if weight.trainable]
        stated = {
            name: Stated(weight.axes, weight.reduce, stage.line_of(f'Weight("{weight.name}"'))
            for name, weight in trained
        }
        yield from check_gradients(variance, effects, stated, along, stage.line_of("def reduce_gradients", 2))


def _classes(headers: Sequence[Header]) -> list[Header]:
    """One of the ranks of each stage and schedule: they take every step together."""
    return list({(header.stage, header.schedule): header for header in reversed(headers)}.values())[::-1]


def _held_by_stages(header: Header, headers: Sequence[Header], stages: Sequence[StageText]) -> Iterator[Fault]:
    """The gradient of a weight that several stages have is summed over these."""
    holders: dict[str, set[int]] = defaultdict(set)
    for number, stage in enumerate(stages):
        for name, weight in named_weights(stage.tables):
            if weight.trainable:
                holders[name].add(number)
    own = stages[header.stage]
    for name, weight in named_weights(own.tables):
        over = {headers[rank].stage for rank in header.groups.get(weight.reduce, (header.rank,))}
        if weight.trainable and over != holders[name]:
            message = f"{name} is on the stages {sorted(holders[name])}, and its gradient is summed over {sorted(over)}"
            yield Fault("gradients", message, own.line_of(f'Weight("{weight.name}"'))


def _regions(program: Program, stage: Stage, text: Written) -> dict[tuple[str, str], Region]:
    found: dict[tuple[str, str], Region] = {}
    units = [program.units[name] for name in dict.fromkeys(call.unit for call in stage.calls)]
    for unit, written in zip(units, text.texts, strict=True):
        for item in unit.forward:
            if isinstance(item, Compute):
                found[unit.name, item.name] = region_of(
                    written.region_names[item.name], stage.index, item, unit, program.sizes
                )
    counter = program.counter
    if counter is not None and text.counter:
        for item in counter.forward:
            if isinstance(item, Compute):
                found["count", item.name] = region_of(text.counter, stage.index, item, counter, program.sizes)
    return found


def _weights(stage: StageText) -> Mapping[str, Mapping[str, Weight]]:
    return stage.tables["WEIGHTS"]  # pyright: ignore[reportReturnType]


def _last_line(fault: Exception, texts: Mapping[str, Sequence[str]]) -> Site | None:
    """The innermost line of an emitted file in the trace of an exception."""
    found, trace = None, fault.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file in texts:
            found = Site(file, trace.tb_lineno, texts[file][trace.tb_lineno - 1].partition("  # ")[0].strip())
        trace = trace.tb_next
    return found

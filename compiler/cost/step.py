"""A whole step in time: every stage's micro-batches in the order of the schedule, the sums of gradients, the update."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moec.compiler.cost.dry_run import Rank
from moec.compiler.cost.interleave import Interleaved
from moec.compiler.cost.links import Spread, Talking, collective_seconds, message, spread, worst_spread
from moec.compiler.cost.machine import Machine
from moec.compiler.cost.pass_time import PassTime, beside_another, pass_time
from moec.compiler.cost.practice import Practice
from moec.compiler.cost.practised import own_share
from moec.compiler.cost.sharded_weights import shared_out, with_gathers
from moec.compiler.cost.simulate import Both, Message, Span, Task, Timeline, Work, simulate
from moec.compiler.program import Instruction, Program
from moec.runtime.communicator import WORLD

NORM_BYTES = 16
"""Of the sums that all ranks agree on before an update."""


@dataclass(frozen=True, slots=True)
class StageTime:
    """What the ranks of one stage spend their time on, in seconds of one step."""

    stage: int
    rank: int
    forward: PassTime
    backward: PassTime
    computing: float
    talking: float
    """In collectives of micro-batches, which hide behind nothing."""
    sending: float
    """In messages to and from the neighbours, once both ends are there."""
    waiting: float
    """For neighbours: the bubble of the pipeline, and stages that are faster than others."""
    starved: float
    """For the host, to start operators."""
    reducing: float
    """Gradients over data-parallel ranks."""
    updating: float
    hidden: float
    """Of what the collectives of micro-batches take, the part that is beside computing."""

    @property
    def exposed(self) -> float:
        """Seconds in which it talks and does not compute."""
        return self.talking + self.sending + self.reducing


@dataclass(frozen=True, slots=True)
class StepTime:
    """A step of the job. `collectives`: of the busiest stage, seconds and messages by kind."""

    seconds: float
    latency: float
    """Of one micro-batch forward through all stages."""
    stages: tuple[StageTime, ...]
    spans: tuple[Span, ...]
    collectives: Mapping[str, float]

    @property
    def talks_most(self) -> int:
        """The stage that `collectives` are of."""
        return _talks_most(self.stages)


def step_time(program: Program, ranks: Sequence[Rank], machine: Machine, practice: Practice) -> StepTime:
    """Simulate a step."""
    groups = [spreads(program, rank, machine) for rank in ranks]
    passes = [_passes(rank, at, machine, practice) for rank, at in zip(ranks, groups, strict=True)]
    timeline = _timeline(program, ranks, passes, machine, practice)
    micro_batches = program.plan.schedule.accumulate
    reducing = [
        _reducing(rank, at, times, machine, practice) for rank, at, times in zip(ranks, groups, passes, strict=True)
    ]
    ready = [end + sum(sums.values()) for end, sums in zip(timeline.ends, reducing, strict=True)]
    everyone = spread(range(program.world_size), machine.ranks_per_node)
    norm = collective_seconds("all_reduce", NORM_BYTES, everyone, machine)
    updating = [update_seconds(rank, machine, practice) for rank in ranks]
    seconds = max(ready) + norm + max(updating)
    stages = []
    for n, (rank, (forward, backward)) in enumerate(zip(ranks, passes, strict=True)):
        sums = sum(reducing[n].values()) + norm
        stages.append(
            StageTime(
                rank.stage,
                rank.rank,
                forward,
                backward,
                micro_batches * (forward.computing + backward.computing) + updating[n],
                micro_batches * (forward.talking + backward.talking),
                timeline.sent[n],
                max(0.0, seconds - timeline.ends[n] - sums - updating[n] + timeline.waited[n]),
                micro_batches * (forward.starved + backward.starved),
                sums,
                updating[n],
                micro_batches * (forward.hidden + backward.hidden),
            )
        )
    latency = sum(forward.seconds for forward, _ in passes) + sum(
        _message(program, rank, machine, practice) for rank in ranks[:-1]
    )
    spans = (*timeline.spans, *_last_spans(timeline, ranks, reducing, ready, norm, updating))
    return StepTime(seconds, latency, tuple(stages), spans, _collectives(stages, reducing, norm, micro_batches))


def _passes(
    rank: Rank, groups: Mapping[str, Spread], machine: Machine, practice: Practice
) -> tuple[PassTime, PassTime]:
    """Forward and backward of a micro-batch."""
    forward = pass_time(rank.forward, groups, machine, practice)
    backward = pass_time(rank.backward, groups, machine, practice)
    return with_gathers(beside_another((forward, backward)), rank, groups, machine, practice)


def update_seconds(rank: Rank, machine: Machine, practice: Practice) -> float:
    """AdamW goes through weight, gradient and two moments, all but the gradient written too; the norm reads gradients,
    which are emptied after it; and weights in half precision are written once more."""
    element = rank.held.gradients // max(1, rank.updated)
    half = rank.held.weights < rank.held.gradients
    moved = (
        rank.updated * own_share(rank, practice) * ((4 + 3 + 1 + 1) * element + (element // 2 + element if half else 0))
    )
    return moved / (machine.memory_bandwidth * machine.memory_efficiency) + 4 * max(machine.launch, machine.dispatch)


def _reducing(
    rank: Rank,
    groups: Mapping[str, Spread],
    times: tuple[PassTime, PassTime],
    machine: Machine,
    practice: Practice,
) -> dict[str, float]:
    """Seconds by group that nothing hides: where they overlap, what does not fit beside a pass, and the last turn."""
    if practice.sharded_weights:
        return {
            shared.name: collective_seconds(
                "all_reduce", shared.gradients / shared.parts.ranks, shared.replicas, machine
            )
            for shared in shared_out(rank, groups, practice)
        }
    element = rank.held.gradients // max(1, rank.updated)
    found: Counter[str] = Counter()
    for red in rank.reductions:
        group, size = groups[red.group], red.size * (practice.gradient_bytes or element) // element
        if practice.sharded_state > 1:
            weights = red.size * rank.held.weights // rank.held.gradients
            parts = [collective_seconds("reduce_scatter", size, group, machine)]
            parts.append(collective_seconds("all_gather", weights // group.ranks, group, machine))
        else:
            parts = [collective_seconds("all_reduce", size, group, machine)]
        found[red.group] += sum(parts)  # pyright: ignore[reportArgumentType]
    whole = sum(found.values())
    if not practice.overlapped_gradients or not whole:
        return dict(found)
    turns = sum(segment.times for segment in rank.backward.segments)
    beside = times[1].seconds + (times[0].seconds if practice.sharded_state > 1 else 0.0)
    exposed = max(whole - beside, whole / turns) / whole
    return {group: seconds * exposed for group, seconds in found.items()}


def _timeline(
    program: Program,
    ranks: Sequence[Rank],
    passes: Sequence[tuple[PassTime, PassTime]],
    machine: Machine,
    practice: Practice,
) -> Timeline:
    if practice.interleave == 1 or len(ranks) == 1:
        return simulate(_tasks(program, ranks, passes, machine, practice))
    schedule = Interleaved(len(ranks), practice.interleave, program.plan.schedule.accumulate)
    messages = [_message(program, rank, machine, practice) for rank in ranks]
    messages[-1] = max(messages)  # back to the first stage
    return simulate(schedule.tasks(passes, messages), buffered=True)


def spreads(program: Program, rank: Rank, machine: Machine) -> dict[str, Spread]:
    """Of every group of the stage the one that lies worst over nodes: others wait for it."""
    stage = _ranks_beside(program, rank)
    found = {name: worst_spread(ranks, stage, machine.ranks_per_node) for name, ranks in rank.groups.items()}
    return found | {WORLD: spread(range(program.world_size), machine.ranks_per_node)}


def _ranks_beside(program: Program, rank: Rank) -> tuple[int, ...]:
    """All ranks of its stage: they differ in every atom but the pipeline's."""
    mesh = program.plan.mesh
    return mesh.group(rank.rank, tuple(atom.name for atom in mesh.atoms if atom.name != program.plan.pipeline_axis))


def _message(program: Program, rank: Rank, machine: Machine, practice: Practice) -> float:
    if rank.next is None:
        return 0.0
    parts = practice.scattered_messages
    gathered = collective_seconds("all_gather", rank.sent / parts, Spread(parts, 1, parts), machine)
    return message_to_next(program, rank, machine, parts).seconds + gathered


def message_to_next(program: Program, rank: Rank, machine: Machine, parts: int = 1) -> Talking:
    """From a rank of the stage to the next stage, over nodes if that of any rank is; a part of it."""
    assert rank.next is not None, "the last stage sends nothing on"
    step, node = rank.next - rank.rank, machine.ranks_per_node
    first = next((r for r in _ranks_beside(program, rank) if (r + step) // node != r // node), rank.rank)
    return message(rank.sent / parts, first, first + step, machine)


def _tasks(
    program: Program,
    ranks: Sequence[Rank],
    passes: Sequence[tuple[PassTime, PassTime]],
    machine: Machine,
    practice: Practice,
) -> list[list[Task]]:
    """The schedule of every stage as tasks; what an exchange is with follows from what is computed after it."""
    found = []
    for n, (stage, (forward, backward)) in enumerate(zip(program.stages, passes, strict=True)):
        after = _message(program, ranks[n], machine, practice)
        before = _message(program, ranks[n - 1], machine, practice) if n else 0.0
        tasks: list[Task] = []
        following: dict[str, int] = {}
        for instruction in reversed(stage.schedule):
            tasks.append(_task(instruction, following, n, (forward, backward), before, after))
            following[instruction.kind] = instruction.index
        found.append(tasks[::-1])
    return found


def _task(
    instruction: Instruction,
    following: Mapping[str, int],
    stage: int,
    passes: tuple[PassTime, PassTime],
    before: float,
    after: float,
) -> Task:
    i = instruction.index
    match instruction.kind:
        case "forward":
            return Work("forward", i, passes[0].seconds)
        case "backward":
            return Work("backward", i, passes[1].seconds)
        case "send":
            return Message(stage + 1, ("x", i, 0), after, True)
        case "receive":
            return Message(stage - 1, ("x", i, 0), before, False)
        case "send_back":
            return Message(stage - 1, ("dx", i, 0), before, True)
        case "receive_back":
            return Message(stage + 1, ("dx", i, 0), after, False)
        case "forth":
            of = following["backward"]
            return Both((Message(stage + 1, ("x", i, 0), after, True), Message(stage + 1, ("dx", of, 0), after, False)))
        case "back":
            of = following["forward"]
            return Both(
                (Message(stage - 1, ("dx", i, 0), before, True), Message(stage - 1, ("x", of, 0), before, False))
            )


def _last_spans(
    timeline: Timeline,
    ranks: Sequence[Rank],
    reducing: Sequence[Mapping[str, float]],
    ready: Sequence[float],
    norm: float,
    updating: Sequence[float],
) -> list[Span]:
    spans = []
    for n, rank in enumerate(ranks):
        now = timeline.ends[n]
        for group, seconds in reducing[n].items():
            spans.append(Span(rank.stage, f"reduce {group}", -1, now, now + seconds))
            now += seconds
        if max(ready) > now:
            spans.append(Span(rank.stage, "wait", -1, now, max(ready)))
        now = max(ready) + norm
        spans.append(Span(rank.stage, "norm", -1, max(ready), now))
        spans.append(Span(rank.stage, "update", -1, now, now + updating[n]))
    return spans


def _talks_most(stages: Sequence[StageTime]) -> int:
    return max(range(len(stages)), key=lambda n: stages[n].exposed)


def _collectives(
    stages: Sequence[StageTime], reducing: Sequence[Mapping[str, float]], norm: float, micro_batches: int
) -> dict[str, float]:
    """Of the stage that talks most, seconds by kind."""
    busiest = _talks_most(stages)
    stage = stages[busiest]
    found: Counter[str] = Counter()
    for done in (stage.forward, stage.backward):
        for kind, seconds in done.by_name(talks=True).items():
            found[kind] += micro_batches * seconds  # pyright: ignore[reportArgumentType]
    found["send and receive"] += stage.sending  # pyright: ignore[reportArgumentType]
    found["gradients"] += sum(reducing[busiest].values())  # pyright: ignore[reportArgumentType]
    found["norm"] += norm  # pyright: ignore[reportArgumentType]
    return {kind: seconds for kind, seconds in found.items() if seconds}

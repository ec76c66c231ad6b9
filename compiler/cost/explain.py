"""Where a figure comes from: its formula, what goes into it, the number, and the lines of the plan that drive it."""

from collections.abc import Callable, Iterator, Sequence
from math import prod

from moec.compiler.cost.balance import DRAWS
from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.formulas import Activations, Formula, elements_of_weights, lines_of, scaled
from moec.compiler.cost.kernels import Kernel
from moec.compiler.cost.links import Spread, Talking, collective, spread
from moec.compiler.cost.machine import Machine
from moec.compiler.cost.memory import Memory
from moec.compiler.cost.passes import Moment, fullest
from moec.compiler.cost.recorder import Storage, Talk
from moec.compiler.cost.requirements import parts_of_step
from moec.compiler.cost.say import seconds, size
from moec.compiler.cost.step import NORM_BYTES, StageTime, message_to_next, spreads
from moec.dsl.diagnostics import plan_error
from moec.dsl.suggest import did_you_mean


def explain(found: Estimate, name: str) -> str:
    """Raises PlanError for a name that is none of those that can be explained."""
    if name not in EXPLAINED:
        raise plan_error("E115", f"--explain knows no `{name}`", *did_you_mean(name, EXPLAINED, "figures"))
    return "\n".join(EXPLAINED[name](found))


def _memory(found: Estimate) -> Iterator[str]:
    worst = max(range(len(found.memory)), key=lambda n: found.memory[n].total)
    memory, rank, stage = found.memory[worst], found.ranks[worst], found.program.stages[worst]
    held = memory.held
    parts = (held.weights, held.gradients, held.optimizer, held.tables, memory.activations, memory.working)
    yield f"memory of a rank of stage {worst}, the fullest, at its peak"
    yield "  = weights + gradients + optimizer + tables + activations + working"
    yield f"  = {' + '.join(size(part) for part in parts)}"
    yield f"  = {size(memory.total)} ({memory.total:,} B)"
    weights = elements_of_weights(found.program, stage)
    symbols = set(weights.symbols)
    for title, total in (("weights", held.weights), ("gradients", held.gradients), ("optimizer", held.optimizer)):
        each = total // max(1, rank.updated)
        yield from _formula(f"{title}: {each} B an element", scaled(weights, each), total)
    yield ""
    yield f"activations: {memory.micro_batches - 1} micro-batches under way beside the one that is computed"
    yield f"  = {memory.micro_batches - 1} * {size(memory.kept)} = {size(memory.activations)}"
    yield f"  a micro-batch keeps {size(memory.kept)} from its forward to its backward:"
    made = Activations(found.program, rank)
    for kept, formula in made.kept():
        times = f" * {kept.turns} of {kept.loop}" if kept.turns > 1 else f" of {kept.loop}"
        yield _tensor(formula, kept.storage, kept.turns, times)
    yield ""
    yield from _working(memory, fullest(rank.done, getattr(rank, memory.fullest), memory.fullest == "backward"), made)
    yield from _driven(found, [*symbols, "batch", "accumulate", "layers", "seq"])


def _working(memory: Memory, moment: Moment, made: Activations) -> Iterator[str]:
    where = f"{memory.fullest} of {moment.loop}{_at(moment.event)}"
    yield f"working: the micro-batch that is computed, fullest in the {where}"
    yield f"  = {size(moment.kept)} + {size(moment.held - moment.kept)} = {size(memory.working)}"
    earlier = "its forward has kept, and is still needed" if memory.fullest == "backward" else "was made before"
    yield f"    {size(moment.kept):>10}  {earlier}"
    yield from (_tensor(formula, storage, 1, "") for storage, formula in made.alive(moment) if formula.value)


def _at(event: Kernel | Talk | None) -> str:
    match event:
        case Kernel():
            return f", at {event.name}"
        case Talk():
            return f", at {event.kind} over {event.group}"
        case _:
            return ""


def _tensor(formula: Formula, storage: Storage, turns: int, times: str) -> str:
    where = f"in {storage.region}" if storage.region else "between regions"
    text = f"{formula.expression}{times}"
    return f"    {size(formula.value * turns):>10}  {text:<58} = {formula.substituted()}{times}, {where}"


def _parameters(found: Estimate) -> Iterator[str]:
    program = found.program
    yield f"parameters = {found.parameters:,}; those that work on a token = {found.active_parameters:,}"
    yield "each weight counts once, also where several units read it; of experts top_k of their number work on a token"
    counted: set[str] = set()
    for unit in dict.fromkeys(call.unit for call in program.calls):
        calls = [call for call in program.calls if call.unit == unit]
        count = 0
        for name, parameter, value in program.weights(calls):
            first = program.shared.get(name, name)
            if parameter.trainable and first not in counted:
                counted.add(first)
                count += prod(int(program.sizes.value(dim, 0)) for dim in value.shape)
        each = f"{len(calls):>4} x {count // len(calls):>16,}" if count % len(calls) == 0 else f"{len(calls):>4} calls"
        yield f"  {unit:<12} {each} = {count:,}"
    yield from _driven(found, ("layers", "hidden", "heads", "ffn", "vocab", "count"))


def _step(found: Estimate) -> Iterator[str]:
    schedule = found.program.plan.schedule
    m = schedule.accumulate
    slowest = max(found.time.stages, key=lambda stage: stage.computing + stage.exposed)
    yield f"step time = {seconds(found.step_seconds)}: the {schedule.kind} schedule, event by event"
    yield "of every stage, accumulate * (forward + backward) + messages + waiting + sums of gradients + update:"
    for stage in found.time.stages:
        rest = (stage.sending, stage.waiting, stage.reducing, stage.updating)
        parts = " + ".join(seconds(each) for each in rest)
        yield f"  stage {stage.stage}: {m} * ({_pass(stage, False)} + {_pass(stage, True)}) + {parts}"
    yield f"a micro-batch on stage {slowest.stage}, the busiest:"
    yield from _pieces(slowest)
    yield from _driven(found, ("accumulate", "batch", "layers"))


def _latency(found: Estimate) -> Iterator[str]:
    passes = [stage.forward.seconds for stage in found.time.stages]
    between = found.time.latency - sum(passes)
    yield "latency = forward of one micro-batch on every stage + messages between them"
    yield f"  = {' + '.join(seconds(each) for each in passes)} + {seconds(between)}"
    yield f"  = {seconds(found.time.latency)}"
    yield from _driven(found, ("accumulate", "batch", "layers", "seq"))


def _throughput(found: Estimate) -> Iterator[str]:
    yield "throughput = tokens of a step / step time"
    yield f"  = {found.tokens:,} / {seconds(found.step_seconds)} = {found.tokens_per_second:,.0f} tokens/s"
    yield f"of each of {found.world_size} GPUs = {found.tokens_per_second / found.world_size:,.0f} tokens/s"
    yield from _driven(found, ("batch", "seq"))


def _mfu(found: Estimate) -> Iterator[str]:
    yield "MFU = FLOPs of the model / (step time * ranks * peak)"
    yield f"  = {found.flops:.4g} / ({seconds(found.step_seconds)} * {found.world_size} * {found.machine.compute:.4g})"
    yield f"  = {100 * found.mfu:.2f} %"
    yield "FLOPs: 3 times the matrix products of a forward; of attention under a causal mask half; of experts the rows"
    yield "that tokens choose; an embedding is a look-up; nothing that is computed again (PaLM, appendix B)"
    yield from _driven(found, ("batch", "seq", "layers", "hidden", "ffn"))


def _shares(found: Estimate) -> Iterator[str]:
    yield "what a rank does through a step, mean over the stages:"
    for name, value in parts_of_step(found.time.stages).items():
        yield f"  {name:<26} {seconds(value):>10}  {100 * value / found.step_seconds:5.1f} %"
    yield f"utilization = computing and the optimizer = {100 * found.utilization:.1f} %"
    yield f"bubble = waiting for other stages = {100 * found.bubble:.1f} %"
    yield f"comm_overhead = collectives, messages and sums of gradients = {100 * found.comm_overhead:.1f} %"
    yield from _driven(found, ("accumulate", "pp"))


def _communication(found: Estimate) -> Iterator[str]:
    machine = found.machine
    share = f"{100 * found.comm_overhead:.1f} % of a step"
    yield f"all communication of a step, mean over stages = {seconds(found.communication_seconds)}; unhidden is exposed"
    yield f"comm_overhead = {seconds(found.exposed_communication_seconds)} / {seconds(found.step_seconds)} = {share}"
    yield "a collective of g ranks = latency + part * bytes / rate; the part is 2 (g - 1) / g of an all_reduce's bytes,"
    yield "(g - 1) / g of a gather's whole, of a scatter's, or of an all_to_all's within a node; of an all_to_all over"
    yield "nodes of n ranks each it is (g - n) / g, which leaves the node"
    everyone = spread(range(found.world_size), machine.ranks_per_node)
    for stage, rank in zip(found.time.stages, found.ranks, strict=True):
        pieces = [*stage.forward.pieces, *stage.backward.pieces]
        groups = spreads(found.program, rank, machine)
        if any(piece.talks for piece, _ in pieces):
            yield f"stage {stage.stage}, of one micro-batch forward and backward:"
        grouped: dict[tuple[str, str, int], int] = {}
        for piece, times in pieces:
            if piece.talks:
                key = piece.name, piece.group, piece.size
                grouped[key] = grouped.get(key, 0) + times
        for (kind, group, count), times in grouped.items():
            yield _collective(times, kind, group, count, groups[group], machine)
        if rank.next is not None:
            yield f"stage {stage.stage}, with the next, of one micro-batch each way:"
            way = message_to_next(found.program, rank, machine)
            yield f"  {1:>4} x {'message':<15}      {size(way.size):>18}  {_substituted(way)}"
        yield f"stage {stage.stage}, at the end of a step:"
        for red in rank.reductions:
            if groups[red.group].ranks > 1:
                yield _collective(1, "all_reduce", red.group, red.size, groups[red.group], machine)
        if everyone.ranks > 1:
            yield _collective(1, "all_reduce", "world", NORM_BYTES, everyone, machine)
    yield "and of a step, on the stage that talks most:"
    for kind, value in found.time.collectives.items():
        yield f"  {kind:<18} {seconds(value):>9}"
    yield from _driven(found, [axis.name for axis in found.program.plan.mesh.axes])


def _collective(times: int, kind: str, group: str, count: float, lies: Spread, machine: Machine) -> str:
    nodes = f"{lies.ranks} ranks, {lies.per_node} to a node" if lies.nodes > 1 else f"{lies.ranks} ranks in a node"
    way = collective(kind, count, lies, machine)
    return f"  {times:>4} x {kind:<15} over {group:<8} {size(count):>10}  {nodes:<24}  {_substituted(way)}"


def _substituted(way: Talking) -> str:
    rate = f"{way.rate / 1e9:.3g} GB/s"
    return f"{seconds(way.latency)} + {way.times:.3g} * {size(way.size)} / {rate} = {seconds(way.seconds)}"


def _balance(found: Estimate) -> Iterator[str]:
    yield f"load_balance = mean / maximum of the ranks' rows = {100 * found.balance.load_balance:.1f} %"
    if found.has_experts:
        yield f"if choices are {found.routing.text}: drawn for a micro-batch, up to {DRAWS} times, with one seed"
        yield f"dropped for want of room: {100 * found.balance.dropped:.2f} % of choices"
    else:
        yield "the model has no experts"
    yield from _driven(found, ("count", "top_k", "capacity", "experts", "batch"))


def _world(found: Estimate) -> Iterator[str]:
    axes = [axis for axis in found.program.plan.mesh.axes if not axis.over]
    yield f"world = {' * '.join(axis.name for axis in axes)}"
    yield f"  = {' * '.join(str(axis.size) for axis in axes)}"
    yield f"  = {found.world_size} ranks"
    yield from _driven(found, [axis.name for axis in axes])


EXPLAINED: dict[str, Callable[[Estimate], Iterator[str]]] = {
    "memory": _memory,
    "parameters": _parameters,
    "active_parameters": _parameters,
    "step_time": _step,
    "latency": _latency,
    "throughput": _throughput,
    "mfu": _mfu,
    "utilization": _shares,
    "bubble": _shares,
    "comm_overhead": _communication,
    "load_balance": _balance,
    "world": _world,
    "memory_bytes": _memory,
    "step_seconds": _step,
    "forward_seconds": _latency,
    "tokens_per_second": _throughput,
    "tokens_per_second_per_gpu": _throughput,
    "communication_seconds": _communication,
    "exposed_communication_seconds": _communication,
}
"""Figures by the names that `require` and `--json` have for them, and who explains them."""


def _formula(title: str, formula: Formula, total: int) -> Iterator[str]:
    yield ""
    yield title
    yield f"  = {formula.expression}"
    yield f"  = {formula.substituted()}"
    rest = total - round(formula.value)
    more = f", and {rest:,} B that pad each weight in its buffer" if rest else ""
    yield f"  = {round(formula.value):,} B{more}: {size(total)}"


def _driven(found: Estimate, symbols: Sequence[str]) -> Iterator[str]:
    paths = [*symbols, "heads", "experts", "ffn", "vocab", "batch", "hardware"]
    lines = lines_of(found.program, dict.fromkeys(paths))
    if lines:
        yield ""
        yield "the plan says"
        yield from (f"  {line}" for line in lines)


def _pass(stage: StageTime, back: bool) -> str:
    return seconds((stage.backward if back else stage.forward).seconds)


def _pieces(stage: StageTime) -> Iterator[str]:
    for title, done in (("forward", stage.forward), ("backward", stage.backward)):
        yield f"  {title}"
        totals: dict[tuple[str, bool], tuple[int, float]] = {}
        for piece, times in done.pieces:
            name = f"{piece.name} over {piece.group}" if piece.talks else piece.name or "between regions"
            count, total = totals.get((name, piece.talks), (0, 0.0))
            totals[name, piece.talks] = count + times, total + times * piece.seconds
        for (name, _), (count, total) in sorted(totals.items(), key=lambda item: -item[1][1]):
            yield f"    {count:>4} x {name:<28} {seconds(total / count):>10} each  {seconds(total):>10}"

"""Cuts a placed unit into regions: convex sets of operators with no communication in them.

Operators of one level, the number of collectives on the longest way to them from the inputs, form a region. Coercions
of weights and inputs stand at the edge and cut nothing. What needs weights alone is done where it is first read.
"""

import builtins
from collections.abc import Mapping, Sequence
from keyword import iskeyword

from moec.compiler.place import Placed
from moec.compiler.program import Collective, Compute, Forward, Op
from moec.compiler.unique import unique

EDGE = ("weight", "buffer", "input", "table")


def cut_regions(placed: Placed) -> tuple[Forward, ...]:
    """The unit's regions and collectives in the order in which they run.

    Ensures: every operator is in one region; what a region reads is made before it.
    """
    level = _levels(placed)
    ops: dict[int, list[Op]] = {}
    for item in placed.items:
        if isinstance(item, Op):
            ops.setdefault(level[item.outputs[0]], []).append(item)
    waiting = [item for item in placed.items if isinstance(item, Collective)]
    forward: list[Forward] = []
    done = {name for name, value in placed.values.items() if _at_edge(placed, name)}
    names: set[str] = set()
    for number in sorted(ops):
        waiting = _run_ready(waiting, forward, done, level, number)
        region = _region(placed, ops[number], names)
        forward.append(region)
        done |= {name for op in region.ops for name in op.outputs}
    _run_ready(waiting, forward, done, level, None)
    return tuple(forward)


def _levels(placed: Placed) -> dict[str, int]:
    """Of every value the number of collectives before it; what floats free is at the level of its first reader."""
    level: dict[str, int] = {name: 0 for name in placed.values if _at_edge(placed, name)}
    edge = set(level)
    free = {name for name in level if placed.values[name].kind in EDGE}
    for item in placed.items:
        if isinstance(item, Op):
            level |= dict.fromkeys(item.outputs, max((level[name] for name in item.inputs), default=0))
            if all(name in free for name in item.inputs):
                free |= set(item.outputs)
        else:
            over = [level[item.source] + (item.source not in edge)]
            if item.routing is not None:
                over += [level[name] for name in (item.routing.counts, item.routing.arrivals) if name]
            level[item.output] = max(over)
            if item.source in free:
                free.add(item.output)
            if item.source in edge:
                edge.add(item.output)
    for item in reversed(placed.items):
        if isinstance(item, Op) and all(name in free for name in item.inputs):
            readers = [
                level[other.outputs[0]]
                for other in placed.items
                if isinstance(other, Op) and set(item.outputs) & set(other.inputs)
            ]
            readers += [
                level[other.source]
                for other in placed.items
                if isinstance(other, Collective) and other.source in item.outputs
            ]
            level |= dict.fromkeys(item.outputs, min(readers, default=level[item.outputs[0]]))
    return level


def _at_edge(placed: Placed, name: str) -> bool:
    value = placed.values[name]
    return value.kind in EDGE or any(name == inside for _, inside in placed.inputs)


def _run_ready(
    waiting: Sequence[Collective], forward: list[Forward], done: set[str], level: Mapping[str, int], before: int | None
) -> list[Collective]:
    """Run the collectives whose operands are there, except those of the edge that are read only later."""
    left: list[Collective] = []
    for item in waiting:
        needs = {item.source, *((item.routing.counts, item.routing.arrivals) if item.routing else ())} - {""}
        late = before is not None and level[item.output] > before
        if needs <= done and not late:
            forward.append(item)
            done.add(item.output)
        else:
            left.append(item)
    return left


def _region(placed: Placed, ops: Sequence[Op], names: set[str]) -> Compute:
    made = {name for op in ops for name in op.outputs}
    read = list(dict.fromkeys(name for op in ops for name in op.inputs if name not in made))
    weights = tuple(name for name in read if placed.values[name].kind in ("weight", "buffer"))
    elsewhere = {
        name
        for item in placed.items
        for name in (
            (item.inputs if item not in ops else ())
            if isinstance(item, Op)
            else (item.source, *((item.routing.counts, item.routing.arrivals) if item.routing else ()))
        )
    } | set(placed.outputs)
    outputs = tuple(name for op in ops for name in op.outputs if name in elsewhere)
    name = _name(placed, ops, weights, names)
    names.add(name)
    return Compute(name, tuple(n for n in read if n not in weights), weights, tuple(ops), outputs)


def _name(placed: Placed, ops: Sequence[Op], weights: Sequence[str], taken: set[str]) -> str:
    """After the modules whose weights it uses, or else after what it does."""
    modules = list(dict.fromkeys(_module_of(placed.names[weight]) for weight in weights))
    if len(modules) > 2:
        modules = [_common(modules)]
    words = [module.rpartition(".")[2] for module in modules if module]
    if not words:
        targets = [op.target for op in ops if not op.target.startswith("aten.")] or [op.target for op in ops]
        aten, _, overloaded = targets[-1].partition("aten.")
        words = [overloaded.partition(".")[0] if overloaded else aten.rpartition(".")[2]]
    base = "_".join(words)
    base = f"{base}_" if iskeyword(base) or hasattr(builtins, base) else base if base.isidentifier() else "region"
    return unique(base, taken)


def _module_of(weight: str) -> str:
    return weight.rpartition(".")[0]


def _common(modules: Sequence[str]) -> str:
    """The module that all lie in; if that is the whole unit, the first and the last child."""
    parts = [module.split(".") for module in modules]
    shared = []
    for words in zip(*parts, strict=False):
        if len(set(words)) > 1:
            break
        shared.append(words[0])
    return ".".join(shared) if shared else f"{parts[0][0]}_to_{parts[-1][0]}"

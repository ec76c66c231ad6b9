"""Several estimates side by side: what the plans say differently, what that changes, and what they have in common."""

from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.requirements import decide
from moec.compiler.cost.say import amount, large, seconds, share, size
from moec.dsl.plan import Decoder, Experts, Plan, Schedule, Train

Block = Decoder | Experts | Schedule | Train
Row = tuple[str, tuple[str, ...]]


def side_by_side(names: Sequence[str], found: Sequence[Estimate]) -> str:
    """A table with a column for each plan; rows in which they differ come first."""
    settings = _rows([_settings(each.program.plan) for each in found])
    figures = _rows([_figures(each) for each in found])
    bounds = _rows([_bounds(each) for each in found])
    groups = (
        ("settings that differ", [row for row in settings if _differs(row)]),
        ("what they cost", [row for row in figures if _differs(row)]),
        ("bounds", bounds),
        ("the same in all", [row for row in (*settings, *figures) if not _differs(row)]),
    )
    widths = _widths(names, [*settings, *figures, *bounds])
    lines = [_line("", names, widths)]
    for title, rows in groups:
        if rows:
            lines += ["", title, *(_line(name, cells, widths) for name, cells in rows)]
    return "\n".join(lines)


def _rows(columns: Sequence[dict[str, str]]) -> list[Row]:
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, tuple(column.get(name, "-") for column in columns)) for name in names]


def _differs(row: Row) -> bool:
    return len(set(row[1])) > 1


def _settings(plan: Plan) -> dict[str, str]:
    """Everything that a plan says, by path."""
    found = {f"mesh.{axis.name}": _axis(axis.size, axis.over) for axis in plan.mesh.axes}
    found |= {f"shard.{dim}": ", ".join(line.axes) or "whole" for line in plan.shard for dim in line.dims}
    found |= {f'shard."{each.pattern}"': ", ".join(dim or "_" for dim in each.dims) for each in plan.patterns}
    found |= {"schedule": plan.schedule.kind} | _fields("schedule", plan.schedule, "kind")
    found |= _fields("train", plan.train)
    hardware = plan.hardware
    found["hardware"] = hardware.name if hardware else "-"
    found |= {f"hardware.{name}": f"{float(value):g}" for name, value in (hardware.fields if hardware else ())}
    if isinstance(plan.model, Decoder):
        found |= _fields("model", plan.model, "experts")
        found |= _fields("model.experts", plan.model.experts) if plan.model.experts else {}
    else:
        found |= {"model": plan.model.target} | {f"model.{name}": str(value) for name, value in plan.model.arguments}
    return found


def _fields(path: str, block: Block, *but: str) -> dict[str, str]:
    return {f"{path}.{name}": _said(value) for name, value in asdict(block).items() if name not in ("place", *but)}


def _said(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else f"{float(value):g}" if isinstance(value, Fraction) else str(value)


def _axis(count: int, over: tuple[str, ...]) -> str:
    return f"{count} over {', '.join(over)}" if over else str(count)


def _figures(found: Estimate) -> dict[str, str]:
    return {
        "ranks": f"{found.world_size:,}",
        "parameters": large(found.parameters),
        "active parameters": large(found.active_parameters),
        "memory": size(found.memory_bytes),
        "fits": "yes" if found.fits else "NO",
        "step": seconds(found.step_seconds),
        "latency": seconds(found.time.latency),
        "tokens/s": f"{found.tokens_per_second:,.0f}",
        "tokens/s a GPU": f"{found.tokens_per_second / found.world_size:,.0f}",
        "MFU": share(found.mfu),
        "utilization": share(found.utilization),
        "bubble": share(found.bubble),
        "exposed communication": share(found.comm_overhead),
    } | (_choices(found) if found.has_experts else {})


def _choices(found: Estimate) -> dict[str, str]:
    return {
        "load balance": share(found.balance.load_balance),
        "dropped choices": share(found.balance.dropped),
    }


def _bounds(found: Estimate) -> dict[str, str]:
    return {
        f"{each.name} {each.relation} {amount(each.name, each.bound)}": "keeps" if each.passed else "BREAKS"
        for each in decide(found)
    }


def _widths(names: Sequence[str], rows: Sequence[Row]) -> list[int]:
    first = max(len(name) for name, _ in rows)
    return [first, *(max(len(name), *(len(cells[n]) for _, cells in rows)) for n, name in enumerate(names))]


def _line(name: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    shown = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
    return f"  {name:<{widths[0]}}  {shown}".rstrip()

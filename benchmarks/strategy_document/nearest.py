"""The plan that comes nearest to the six requirements with 30 billion parameters, and what stands beside it."""

from collections.abc import Iterator

from strategy_document.describe import described, row
from strategy_document.figure import Figure, gigabytes, milliseconds, percent
from strategy_document.search import BOUNDS, MODELS, SIX
from strategy_document.variants import traced, under

from moec.compiler.cost import Estimate, decide

BESIDE = {
    "row_two": ("two sequences of a rank together", "17 layers", "pp=2 ep=8", "h100", 2048, 128),
    "row_batch": ("the document's batch of 256", "17 layers", "pp=2 ep=8", "h100", 256, 32),
    "row_flagship_h100": ("the flagship's model in its place", "flagship", "pp=2 ep=8", "h100", 1024, 128),
    "row_tp": ("tp 2, ep 4", "17 layers", "pp=2 ep=4 tp=2", "h100", 1024, 256),
    "row_dp": ("dp 2", "17 layers", "pp=2 dp=2 ep=8", "h100", 1024, 64),
    "row_nodes": ("one stage, ep 16 over two nodes", "17 layers", "ep=16", "h100", 1024, 64),
    "row_b200": ("on B200", "17 layers", "pp=2 ep=8", "b200", 1024, 128),
    "row_gb200": ("on GB200", "17 layers", "pp=2 ep=8", "gb200", 1024, 128),
    "row_gb200_ep": ("one stage, ep 16, on GB200", "17 layers", "ep=16", "gb200", 1024, 64),
}
"""What stands beside the nearest plan: a title, a model of the search, axes, a machine, batch and accumulation."""


def nearest_plan() -> Iterator[Figure]:
    found = under(traced("strategy/nearest"))
    yield from described("nearest", found)
    yield Figure("still_fails", _short_of_claims(found))
    yield Figure("row_nearest", row("nearest.plan", found))
    yield Figure("row_flagship", row("30b_moe.plan, the flagship", under(traced("30b_moe", *BOUNDS))))
    models = {name: traced("30b_moe", *BOUNDS, *settings) for name, settings in MODELS.items()}
    for name, (title, model, axes, machine, batch, accumulate) in BESIDE.items():
        sizes = {"pp": "1", "dp": "1", "ep": "1", "tp": "1"} | dict(axis.split("=") for axis in axes.split())
        mesh = [f"mesh.{axis}={size}" for axis, size in sizes.items()]
        schedule = f"schedule.batch={batch}", f"schedule.accumulate={accumulate}"
        yield Figure(name, row(title, under(models[model], *mesh, *schedule, f"hardware={machine}")))


def _short_of_claims(found: Estimate) -> str:
    """What of the six, and of the document's own figures, a plan does not keep."""
    broken = [each.name for each in decide(found) if each.name in SIX and not each.passed]
    seconds, size = found.time.latency, found.memory_bytes
    short = (
        (size > 11.6e9, f"memory is {gigabytes(size)} for its 11.6 GB"),
        (seconds > 27e-3, f"latency {milliseconds(seconds)} for its 27 ms"),
        (found.comm_overhead > 0.015, f"communication {percent(found.comm_overhead)} for its 1.5 %"),
        (found.balance.load_balance < 0.92, f"balance {percent(found.balance.load_balance)} for its 92 %"),
        (found.utilization < 0.94, f"utilization {percent(found.utilization)} for its 94 %"),
    )
    own = ", ".join(text for fails, text in short if fails)
    six = f"of the six {', '.join(broken)}" if broken else "of the six nothing"
    return f"{six}; of the document's own figures, {own}." if own else f"{six}."

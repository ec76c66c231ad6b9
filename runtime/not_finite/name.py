"""All ranks together name the rank and the instruction that a value which is not finite came from."""

import json
from dataclasses import dataclass
from types import ModuleType

from moec.runtime.not_finite.origin import Origin, first_of
from moec.runtime.not_finite.replay import trace
from moec.runtime.run import Run
from moec.runtime.store import Store
from moec.runtime.watch import Watch

_MEND = "nothing was updated, and no later step is saved; train { not_finite = skip } leaves such steps out"
_AGAIN = "and all was finite when the step was run again: its hardware may be at fault"


@dataclass(frozen=True, slots=True)
class Named:
    """The rank that it began on, and the line that says so."""

    rank: int
    line: str


def name_origin(run: Run, rank_module: ModuleType, seen: str, step: int, store: Store, watch: Watch) -> Named | None:
    """Run the step again, as all ranks do. What is to be said of it, on the rank that comes last; None on the others.

    `seen` is what this rank had that is not finite, "" if it had nothing.
    """
    origin = trace(run, rank_module.step, rank_module.stage)
    key, world = f"not_finite/{step}", run.job.world_size
    store.set(f"{key}/{run.place.rank}", json.dumps([seen, origin.text if origin else ""]))
    if store.add(f"{key}/ranks", 1) < world:
        return None
    notes = [json.loads(store.get(f"{key}/{rank}")) for rank in range(world)]
    origins = {rank: Origin.of(text) for rank, (_, text) in enumerate(notes) if text}
    rank = first_of(origins)
    if rank is not None:
        found = origins[rank]
        place = f", micro-batch {found.micro_batch}" if found.micro_batch >= 0 else ""
        what = f"has the first value that is not finite: {found.what}{place}"
        return Named(rank, watch.said(rank, what, found.at, step))
    had = [rank for rank, (words, _) in enumerate(notes) if words]
    rank = had[0] if had else 0
    others = f" (as ranks {', '.join(map(str, had[1:9]))} do)" if len(had) > 1 else ""
    what = f"had a value that is not finite{others}: {notes[rank][0]}, {_AGAIN}"
    return Named(rank, watch.said(rank, what, "", step))


def end_with_origin(run: Run, rank_module: ModuleType, seen: str, store: Store, watch: Watch) -> int:
    """The status to end with, once it is named."""
    named = name_origin(run, rank_module, seen, run.step + 1, store, watch)
    if named is None:
        watch.wait()
    return watch.end(watch.verdict_of(f"{named.line}: {_MEND}", named.rank))

"""The six kinds of thing that a rank's time goes into, and a step as a bar of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.say import seconds
from moec.compiler.cost.step import StageTime
from moec.compiler.report.shares import percent, width

KINDS = ("computing", "talking", "sending", "waiting", "reducing", "updating")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bar; `width` in percent of all of it."""

    kind: str
    width: str
    title: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A step of one stage, in pieces."""

    name: str
    parts: tuple[Part, ...]


def step_bars(found: Estimate) -> tuple[Bar, ...]:
    """The busiest stage and the mean of all."""
    stages, busiest = found.time.stages, busiest_stage(found)
    mean = {kind: sum(kinds_of(stage)[kind] for stage in stages) / len(stages) for kind in KINDS}
    return (
        Bar(f"stage {busiest}, the busiest", parts_of(kinds_of(stages[busiest]), found.step_seconds)),
        Bar("mean of the stages", parts_of(mean, found.step_seconds)),
    )


def busiest_stage(found: Estimate) -> int:
    """The stage that waits least, for which the others wait."""
    return min(range(len(found.time.stages)), key=lambda n: found.time.stages[n].waiting)


def kinds_of(stage: StageTime) -> dict[str, float]:
    """Seconds of a step by kind, which add up to the step."""
    return {
        "computing": stage.computing + stage.starved - stage.updating,
        "talking": stage.talking,
        "sending": stage.sending,
        "waiting": stage.waiting,
        "reducing": stage.reducing,
        "updating": stage.updating,
    }


def parts_of(times: Mapping[str, float], whole: float) -> tuple[Part, ...]:
    """The pieces of a bar as long as `whole`."""
    return tuple(
        Part(kind, width(value / whole), f"{kind} {seconds(value)}, {percent(value / whole)}")
        for kind, value in times.items()
        if value > 0
    )

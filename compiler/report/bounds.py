"""The bounds of a plan's `require` in finished words: kept or broken, and what would mend it."""

from collections.abc import Sequence
from dataclasses import dataclass

from moec.compiler.cost.estimate import Estimate
from moec.compiler.cost.mend import Mend
from moec.compiler.cost.requirements import Requirement, decide
from moec.compiler.cost.say import amount


@dataclass(frozen=True, slots=True)
class Bound:
    """A line of `require`."""

    name: str
    relation: str
    bound: str
    value: str
    margin: str
    passed: bool
    limit: str
    mend: str


def said_bounds(found: Estimate, mends: Sequence[Mend]) -> tuple[Bound, ...]:
    """In the order of the plan; `mends` are those that a search has found for broken ones."""
    known = {(mend.name, mend.relation): mend for mend in mends}
    return tuple(_said(each, None if each.passed else known.get((each.name, each.relation))) for each in decide(found))


def _said(each: Requirement, mend: Mend | None) -> Bound:
    return Bound(
        each.name,
        each.relation,
        amount(each.name, each.bound),
        amount(each.name, each.value),
        f"{'+' if each.passed else '−'}{100 * abs(each.margin):,.0f} %",
        each.passed,
        each.limit,
        _said_mend(mend) if mend and mend.settings else "",
    )


def _said_mend(mend: Mend) -> str:
    settings = " ".join(f"--set {setting}" for setting in mend.settings)
    breaks = f", and breaks {', '.join(mend.breaks)}" if mend.breaks else ""
    worsens = f", and makes {', '.join(mend.worsens)} worse" if mend.worsens else ""
    keeps = "keeps it" if mend.passed else "comes nearest"
    return f"{settings} {keeps}: {amount(mend.name, mend.value)}{breaks}{worsens}"

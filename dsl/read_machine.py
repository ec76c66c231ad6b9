"""Reads the blocks about the machine: `hardware`, and the bounds of `require`."""

from fractions import Fraction

from moec.dsl.plan import Hardware, Require
from moec.dsl.reading import Reading
from moec.dsl.schema import REQUIREMENTS, SETTINGS, SHARES, Real
from moec.dsl.settings import Failed, convert
from moec.dsl.suggest import did_you_mean
from moec.dsl.syntax import Block, Bound, Setting


def read_hardware(block: Block | None, reading: Reading) -> Hardware | None:
    """The machine's name and what the plan says otherwise; None if the plan does not say."""
    if block is None:
        return None
    reading.only(block, (Setting,), "memory = 80 GiB")
    settings = reading.settings(block, "hardware")
    if settings is None or block.title is None:
        return None
    given = [name for name in SETTINGS["hardware"] if settings.place(f"hardware.{name}")]
    return Hardware(block.title.text, tuple((name, settings.number(f"hardware.{name}")) for name in given))


def read_requirements(block: Block | None, reading: Reading) -> tuple[Require, ...]:
    """The bounds of `require`, in the order of the plan."""
    if block is None:
        return ()
    reading.only(block, (Bound,), "memory < 64 GiB")
    found: dict[tuple[str, bool], Require] = {}
    for bound in (item for item in block.items if isinstance(item, Bound)):
        require = _read_bound(bound, reading)
        if require is None:
            continue
        before = found.setdefault((require.name, require.relation.startswith("<")), require)
        if before is not require and before.place:
            labels = bound.place.label("given again here"), before.place.note("first given here")
            reading.report.error("E108", f"`{require.name}` is bounded twice on one side", *labels, help=["keep one"])
        reading.places[f"require.{require.name}"] = bound.place
        if not _can_be_kept(require):
            headline = f"no plan keeps `{require.name} {require.relation} {bound.value.place.text}`"
            below = require.relation.startswith("<")
            help = f"it is {_least(require.name)} at least" if below else "it is a share, and 1 at most"
            reading.report.error("E110", headline, bound.place.label("this bound"), help=[help])
    for (name, below), require in found.items():
        other = found.get((name, not below))
        if below and other is not None and _exclude(require, other) and require.place and other.place:
            labels = require.place.label("below this"), other.place.note("and above this")
            reading.report.error("E110", f"no plan keeps both bounds of `{name}`", *labels, help=["keep one"])
    return tuple(found.values())


def _can_be_kept(require: Require) -> bool:
    """Whether any value at all is on the right side."""
    match require.relation:
        case "<":
            return require.bound > _least(require.name)
        case "<=":
            return require.bound >= _least(require.name)
        case ">":
            return require.name not in SHARES or require.bound < 1
        case _:
            return require.name not in SHARES or require.bound <= 1


def _least(name: str) -> int:
    return 1 if name == "world" else 0


def _exclude(below: Require, above: Require) -> bool:
    strict = "=" not in below.relation or "=" not in above.relation
    return below.bound < above.bound or (below.bound == above.bound and strict)


def _read_bound(bound: Bound, reading: Reading) -> Require | None:
    name = bound.name
    if name.text not in REQUIREMENTS:
        help = did_you_mean(name.text, REQUIREMENTS, "bounds")
        reading.report.error("E107", f"`require` knows no `{name.text}`", name.place.label("unknown bound"), help=help)
        return None
    value = convert(bound.value, Real(unit=REQUIREMENTS[name.text]), name.text, reading.names, reading.report)
    if isinstance(value, Failed):
        return None
    assert isinstance(value, Fraction), "a number with a unit is a fraction"
    return Require(name.text, bound.relation, value, bound.place)

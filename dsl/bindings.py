"""Works out the names that a plan binds with `let`, each from those bound before it."""

from moec.dsl.evaluate import Names, evaluate
from moec.dsl.report import Report
from moec.dsl.source import Place
from moec.dsl.syntax import Binding
from moec.dsl.units import Quantity

RESERVED = frozenset(
    {"let", "over", "whole", "python", "true", "false", "none", "nan", "inf", "infinity", "batch", "_"}
)
"""Words that mean something else where a number may stand."""


def bind(bindings: tuple[Binding, ...], report: Report) -> Names:
    """Every name with its value, None where that is at fault."""
    values: dict[str, Quantity | None] = {binding.name.text: None for binding in bindings}
    places: dict[str, Place] = {}
    for binding in bindings:
        places.setdefault(binding.name.text, binding.place)
    names = Names(values, places)
    for binding in bindings:
        name = binding.name
        if name.text.lower() in RESERVED:
            label = name.place.label("has a meaning of its own")
            report.error("E113", f"`{name.text}` cannot be bound", label, help=["choose another name"])
        elif places[name.text] is not binding.place:
            labels = name.place.label("bound again here"), places[name.text].note("first bound here")
            report.error(
                "E108", f"`{name.text}` is bound twice", *labels, help=["a name keeps its value: take another"]
            )
        else:
            values[name.text] = evaluate(binding.value, names, report)
    return names

"""Reads the block `model` of an imported model: a torch.nn.Module of the user's, its arguments, inputs and weights."""

import re

from moec.dsl.evaluate import evaluate
from moec.dsl.plan import Argument, Imported, Pattern
from moec.dsl.read_inputs import MOST_DIMS, read_inputs
from moec.dsl.reading import Reading
from moec.dsl.settings import once
from moec.dsl.suggest import did_you_mean
from moec.dsl.syntax import Block, Chain, Naming, Negative, Number, Python, Setting, Text, Word
from moec.dsl.units import PLAIN

_INNER = {
    "small": "channels = 6",
    "inputs": "image = float[batch, 3, 32, 32]",
    "weights": '"stem.weight" [channels, _]',
}
"""The blocks of an imported model, and how an item of each is written."""

_TARGET = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)


def read_import(block: Block, reading: Reading) -> Imported | None:
    """The model, or None with the faults reported."""
    assert block.python, "an imported model says from where"
    before = reading.report.errors
    reading.only(block, (Setting, Block), "channels = 64")
    blocks = _inner_blocks(block, reading)
    settings = once((item for item in block.items if isinstance(item, Setting)), reading.report)
    data = next((setting for setting in settings if setting.name.text == "data"), None)
    target = _target(block.python, reading)
    source = _data(data, reading)
    arguments = _arguments([setting for setting in settings if setting is not data], "model", reading)
    small = _small(blocks.get("small"), arguments, reading)
    inputs, small_inputs = read_inputs(block, blocks.get("inputs"), arguments, small, reading)
    weights = tuple(read_pattern(item, reading) for item in _namings(blocks.get("weights")))
    if reading.report.errors > before:
        return None
    return Imported(
        target=target,
        arguments=tuple(arguments.items()),
        small=tuple(small.items()),
        inputs=inputs,
        small_inputs=small_inputs,
        data=source,
        weights=weights,
        place=block.place,
    )


def read_pattern(naming: Naming, reading: Reading) -> Pattern:
    """The dims of the weights that a glob matches; `_` is a dim without a name."""
    dims: list[str | None] = []
    if len(naming.dims.items) > MOST_DIMS:
        label = naming.dims.place.label(f"{len(naming.dims.items):,} dims")
        reading.report.error("E110", f"a tensor has at most {MOST_DIMS} dims", label, help=["leave some out"])
    for item in naming.dims.items[:MOST_DIMS]:
        if not isinstance(item, Word):
            help = ["name the dim, or write `_` for one without a name"]
            reading.report.error("E109", "the dims of a weight are names", item.place.label("not a name"), help=help)
        elif item.text != "_" and item.text in dims:
            help = ["write `_` for one of them"]
            label = item.place.label("named again")
            reading.report.error("E206", f"`{item.text}` is two dims of one weight", label, help=help)
        dims.append(item.text if isinstance(item, Word) and item.text != "_" else None)
    if not naming.pattern.value:
        help = ['name weights as the module does, such as "layers.*.weight"']
        reading.report.error("E109", "the pattern is empty", naming.pattern.place.label("matches nothing"), help=help)
    return Pattern(naming.pattern.value, tuple(dims), naming.place)


def _namings(block: Block | None) -> list[Naming]:
    return [item for item in block.items if isinstance(item, Naming)] if block else []


def _inner_blocks(block: Block, reading: Reading) -> dict[str, Block]:
    kinds = {"small": Setting, "inputs": Setting, "weights": Naming}
    found: dict[str, Block] = {}
    for inner in (item for item in block.items if isinstance(item, Block)):
        kind = inner.kind
        if kind.text not in _INNER:
            help = did_you_mean(kind.text, _INNER, "blocks")
            headline = f"an imported model has no block `{kind.text}`"
            reading.report.error("E107", headline, kind.place.label("unknown block"), help=help)
        elif kind.text in found:
            labels = inner.place.label("given again here"), found[kind.text].place.note("first given here")
            reading.report.error("E108", f"the block `{kind.text}` is given twice", *labels, help=["keep one of them"])
        else:
            found[kind.text] = inner
            reading.only(inner, (kinds[kind.text],), _INNER[kind.text])
    return found


def _target(python: Python, reading: Reading) -> str:
    target = python.target
    if not _TARGET.fullmatch(target.value):
        help = ['write `python "package.module:Class"`']
        headline = f"`{target.value}` names nothing in a Python module"
        reading.report.error("E305", headline, target.place.label("not `package.module:name`"), help=help)
    return target.value


def _data(setting: Setting | None, reading: Reading) -> str | None:
    if setting is None:
        return None
    reading.places["model.data"] = setting.place
    if isinstance(setting.value, Python):
        return _target(setting.value, reading)
    help = ['write `data = python "package.module:dataset"`']
    label = setting.value.place.label("not imported")
    reading.report.error("E109", "`data` is an indexable object of a Python module", label, help=help)
    return None


def _small(block: Block | None, arguments: dict[str, Argument], reading: Reading) -> dict[str, Argument]:
    if block is None:
        return {}
    settings = once((item for item in block.items if isinstance(item, Setting)), reading.report)
    for setting in settings:
        if setting.name.text not in arguments:
            help = did_you_mean(setting.name.text, arguments, "arguments")
            headline = f"`{setting.name.text}` is not an argument of the model"
            reading.report.error("E107", headline, setting.name.place.label("only small"), help=help)
    return _arguments(settings, "model.small", reading)


def _arguments(settings: list[Setting], path: str, reading: Reading) -> dict[str, Argument]:
    found: dict[str, Argument] = {}
    for setting in settings:
        reading.places[f"{path}.{setting.name.text}"] = setting.place
        value = _argument(setting, reading) if reading.identifier(setting.name, "an argument") else 1
        found[setting.name.text] = 1 if value is None else value
    return found


def _argument(setting: Setting, reading: Reading) -> Argument | None:
    """A number, true, false or a string; None, with the fault reported, if it is none of these."""
    value = setting.value
    match value:
        case Text():
            return value.value
        case Word(text="true" | "false"):
            return value.text == "true"
        case Number() | Word() | Negative() | Chain():
            quantity = evaluate(value, reading.names, reading.report)
            if quantity is None:
                return None
            if quantity.unit != PLAIN:
                label = value.place.label("has a unit")
                reading.report.error("E109", "an argument is a plain number", label, help=["leave the unit out"])
            return float(quantity.value) if quantity.real else int(quantity.value)
        case _:
            help = ["write a number, `true`, `false` or a string"]
            headline = f"`{setting.name.text}` is no argument that a plan can give"
            reading.report.error("E109", headline, value.place.label("out of place"), help=help)
            return None

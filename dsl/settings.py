"""Reads the settings of a block by its schema: known names, once each, of the right kind and in range."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

from moec.dsl.evaluate import Names, evaluate
from moec.dsl.report import Report
from moec.dsl.schema import SETTINGS, Choice, FileName, Flag, Kind, Patterns, Real, Setting, Whole
from moec.dsl.source import Place
from moec.dsl.suggest import did_you_mean, listed, nearest
from moec.dsl.syntax import Block, Chain, Negative, Number, Text, Texts, Value, Word
from moec.dsl.syntax import Setting as Written
from moec.dsl.units import EXAMPLES, PLAIN, Quantity, unit_name


@dataclass(frozen=True, slots=True)
class Found:
    """A setting's value, and where it is written if it is."""

    value: Setting
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Values by path, such as "model.experts.count"; made only of a block without faults."""

    found: Mapping[str, Found]

    def whole(self, path: str) -> int:
        """A whole number that is given or has a default."""
        value = self.whole_if(path)
        assert value is not None, f"{path} has a value"
        return value

    def whole_if(self, path: str) -> int | None:
        value = self.found[path].value
        assert value is None or (isinstance(value, int) and not isinstance(value, bool)), f"{path} is a whole number"
        return value

    def real(self, path: str) -> Fraction:
        """A number that is given or has a default."""
        value = self.real_if(path)
        assert value is not None, f"{path} has a value"
        return value

    def real_if(self, path: str) -> Fraction | None:
        value = self.found[path].value
        assert value is None or isinstance(value, Fraction), f"{path} is a number"
        return value

    def number(self, path: str) -> Fraction:
        """A whole or other number that is given, as a fraction."""
        value = self.found[path].value
        assert isinstance(value, int | Fraction), f"{path} is a number"
        return Fraction(value)

    def word(self, path: str) -> str:
        value = self.found[path].value
        assert isinstance(value, str), f"{path} is a word"
        return value

    def word_if(self, path: str) -> str | None:
        value = self.found[path].value
        assert value is None or isinstance(value, str), f"{path} is a word"
        return value

    def flag(self, path: str) -> bool:
        value = self.found[path].value
        assert isinstance(value, bool), f"{path} is true or false"
        return value

    def patterns(self, path: str) -> tuple[str, ...]:
        value = self.found[path].value
        assert isinstance(value, tuple), f"{path} is patterns"
        return value

    def place(self, path: str) -> Place | None:
        """Where a setting is written; None if it is not."""
        return self.found[path].place if path in self.found else None


def read_settings(block: Block, path: str, names: Names, report: Report, also: Iterable[str] = ()) -> dict[str, Found]:
    """The settings of a block by path, defaults included; `also` are names that mean something else in it."""
    schema = SETTINGS[path]
    found: dict[str, Found] = {f"{path}.{name}": Found(entry.default) for name, entry in schema.items()}
    meant: set[str] = set()
    for setting in once((item for item in block.items if isinstance(item, Written)), report):
        name = setting.name.text
        if name not in schema:
            if name in also:
                _report_block(setting, block, report)
            else:
                _report_unknown(setting.name, block, (*schema, *also), report)
            meant.add(nearest(name, schema) or name)
            continue
        meant.add(name)
        del found[f"{path}.{name}"]
        value = convert(setting.value, schema[name].kind, setting.name.text, names, report)
        if not isinstance(value, Failed):
            found[f"{path}.{name}"] = Found(value, setting.place)
    _report_missing(block, [name for name in schema if schema[name].required and name not in meant], report)
    return found


@dataclass(frozen=True, slots=True)
class Failed:
    """A value that could not be had; the fault is reported."""


def once(settings: Iterable[Written], report: Report) -> list[Written]:
    """Settings with those left out whose name was given before."""
    first: dict[str, Written] = {}
    for setting in settings:
        before = first.setdefault(setting.name.text, setting)
        if before is not setting:
            headline = f"`{setting.name.text}` is given twice"
            labels = setting.place.label("given again here"), before.place.note("first given here")
            report.error("E108", headline, *labels, help=["keep one of them"])
    return list(first.values())


def convert(value: Value, kind: Kind, name: str, names: Names, report: Report) -> Setting | Failed:
    """The value of a setting called `name`, if it is of this kind."""
    match kind:
        case Choice(words=words):
            if isinstance(value, Word) and value.text in words:
                return value.text
            return _wrong_word(value, words, name, report)
        case Flag():
            if isinstance(value, Word) and value.text in ("true", "false"):
                return value.text == "true"
            return _wrong_word(value, ("true", "false"), name, report)
        case Patterns():
            return _patterns(value, name, report)
        case FileName():
            return _file_name(value, name, report)
        case Real(none=True) if isinstance(value, Word) and value.text == "none":
            return None
        case Whole() | Real():
            return _number(value, kind, name, names, report)
        case _:
            assert_never(kind)


def whole(value: Value, kind: Whole, name: str, names: Names, report: Report) -> int | None:
    """The value of a setting that is a whole number; None, with the fault reported, if it is not."""
    number = _number(value, kind, name, names, report)
    return number if isinstance(number, int) else None


def _file_name(value: Value, name: str, report: Report) -> Setting | Failed:
    if isinstance(value, Text) and value.value and "\0" not in value.value:
        return value.value
    report.error("E109", f"`{name}` is a file, as a string", value.place.label("no name of a file"))
    return Failed()


def _patterns(value: Value, name: str, report: Report) -> Setting | Failed:
    match value:
        case Text():
            return (value.value,)
        case Texts():
            return tuple(text.value for text in value.items)
        case _:
            headline = f"`{name}` takes names of weights, as strings"
            help = f'write `{name} = "*.bias", "norm.*"`'
            report.error("E109", headline, value.place.label("no string"), help=[help])
            return Failed()


def _number(value: Value, kind: Whole | Real, name: str, names: Names, report: Report) -> Setting | Failed:
    unit = kind.unit if isinstance(kind, Real) else PLAIN
    if not isinstance(value, Number | Word | Negative | Chain):
        report.error("E109", f"`{name}` is {EXAMPLES[unit]}", value.place.label("not a number"), help=_spelt(unit))
        return Failed()
    quantity = evaluate(value, names, report)
    if quantity is None:
        return Failed()
    if quantity.unit != unit:
        _report_unit(value.place, quantity, unit, name, report)
        return Failed()
    if isinstance(kind, Whole):
        return _in_whole(quantity, kind, name, value.place, report)
    return _in_real(quantity, kind, name, value.place, report)


def _in_whole(quantity: Quantity, kind: Whole, name: str, place: Place, report: Report) -> int | Failed:
    value = quantity.value
    if value.denominator != 1:
        near = [f"{name} = {number}" for number in sorted({max(kind.least, int(value)), int(value) + 1})]
        label = place.label(f"{shown(value)} is not whole")
        report.error("E110", f"`{name}` is a whole number", label, help=[f"write `{'` or `'.join(near)}`"])
        return Failed()
    if not kind.holds(value):
        nearest = f"{kind.least}` or more" if value < kind.least else f"{kind.most:_}` or less"
        label = place.label(f"{shown(value)} is outside")
        report.error("E110", f"`{name}` is {kind.wanted}", label, help=[f"write `{name} = {nearest}"])
        return Failed()
    return int(value)


def _in_real(quantity: Quantity, kind: Real, name: str, place: Place, report: Report) -> Fraction | Failed:
    value = quantity.value
    if kind.holds(value):
        return value
    least = f"above {shown(kind.least)}" if kind.open_least else f"at least {shown(kind.least)}"
    most = f"below {shown(kind.most)}" if kind.open_most else f"at most {shown(kind.most)}"
    wanted = f" {most}" if kind.high_enough(value) else f" {least}"
    help = [f"write a number{wanted}", *([f"write `{name} = none` for no limit"] if kind.none else [])]
    report.error("E110", f"`{name}` is{wanted}", place.label(f"{shown(value)} is not"), help=help)
    return Failed()


def shown(value: Fraction) -> str:
    """A number for a message: exact if that is short."""
    if value.denominator == 1 and abs(value) < 10**21:
        return str(value.numerator)
    try:
        return f"{float(value):.6g}"
    except OverflowError:
        return f"a number of {len(str(abs(value.numerator // value.denominator)))} digits"


def _report_unit(place: Place, quantity: Quantity, unit: tuple[int, int, int, int], name: str, report: Report) -> None:
    said = "a number without a unit" if quantity.unit == PLAIN else f"a number of {unit_name(quantity.unit)}"
    help = ["leave the unit out"] if unit == PLAIN else _spelt(unit)
    report.error("E109", f"`{name}` is {EXAMPLES[unit]}", place.label(said), help=help)


def _spelt(unit: tuple[int, int, int, int]) -> list[str]:
    """How a number with this unit is written."""
    _, _, example = EXAMPLES[unit].partition(", ")
    return [f"write a number and its unit, {example}" if example else "write a number"]


def _wrong_word(value: Value, words: tuple[str, ...], name: str, report: Report) -> Failed:
    text = value.text if isinstance(value, Word) else ""
    close = nearest(text, words) if text else None
    help = f"write `{name} = {close or words[0]}`"
    report.error("E109", f"`{name}` is {listed(words, 'or')}", value.place.label("none of these"), help=[help])
    return Failed()


def _report_unknown(word: Word, block: Block, known: tuple[str, ...], report: Report) -> None:
    headline = f"`{block.kind.text}` has no setting `{word.text}`"
    report.error("E107", headline, word.place.label("unknown setting"), help=did_you_mean(word.text, known, "settings"))


def _report_block(setting: Written, block: Block, report: Report) -> None:
    name, kind = setting.name.text, block.kind.text
    first = next(iter(SETTINGS.get(f"{kind}.{name}", {"count": None})))
    help = f"write `{name} {{ ... }}`, or set one of its settings, such as `--set {kind}.{name}.{first}=8`"
    label = setting.name.place.label("not a setting")
    report.error("E107", f"`{name}` of `{kind}` is a block", label, help=[help])


def _report_missing(block: Block, missing: list[str], report: Report) -> None:
    if missing:
        headline = f"`{block.kind.text}` lacks {listed(missing)}"
        help = f"write `{'  '.join(f'{name} = ...' for name in missing)}`"
        report.error("E111", headline, block.place.label("in this block"), help=[help])

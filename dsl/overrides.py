"""Puts what the command line says, `--set path.to.key=value`, in the place of what the text of a plan says."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from moec.dsl.diagnostics import PlanError
from moec.dsl.parse import parse_set_axes, parse_set_bound, parse_set_value
from moec.dsl.report import Report
from moec.dsl.schema import BLOCKS
from moec.dsl.source import COMMAND_LINE, Place, Source, Span
from moec.dsl.suggest import did_you_mean, nearest
from moec.dsl.syntax import (
    Block,
    Bound,
    Chain,
    Document,
    Fold,
    Item,
    Line,
    Negative,
    Number,
    Setting,
    Value,
    Word,
)

_PATH = re.compile(r"\s*[^\W\d]\w*(?:\.[^\W\d]\w*)*\s*")
_MOST_PARTS = 4


def apply_overrides(document: Document, overrides: Sequence[str]) -> Document:
    """The document as if it said so itself; the last of several overrides of one value counts."""
    report = Report()
    for text in overrides:
        try:
            document = _apply(document, text)
        except PlanError as fault:
            report.add(fault.diagnostics)
    report.close()
    return document


def _apply(document: Document, text: str) -> Document:
    source = Source(COMMAND_LINE, text)
    written, equal, _ = text.partition("=")
    if not equal and _PATH.fullmatch(written):
        raise _fault(Place(source, Span(0, len(written))), "no value follows", f"write `--set {written.strip()}=VALUE`")
    if not _PATH.fullmatch(written) or written.count(".") >= _MOST_PARTS:
        raise _fault(Place(source, Span(0, len(written))), "not a path of names", "write `--set mesh.tp=8`")
    path = _words(source, written)
    start = len(written) + 1
    if not text[start:].strip():
        raise _fault(path[-1].place, "no value follows", f"write `--set {written.strip()}=VALUE`")
    match path:
        case [name]:
            return _set_name(document, name, source, start)
        case [Word(text="mesh"), axis]:
            value = parse_set_value(source, start)
            return _in_block(document, path, lambda items: _set_axis(items, axis, value))
        case [Word(text="shard"), dim]:
            axes = parse_set_axes(source, start)
            return _in_block(document, path, lambda items: _set_line(items, dim, axes))
        case [Word(text="require"), name]:
            relation, bound = parse_set_bound(source, start)
            return _in_block(document, path, lambda items: _set_bound(items, name, relation, bound))
        case [*_, name]:
            value = parse_set_value(source, start)
            return _in_block(document, path, lambda items: _set_value(items, name, value))
    raise AssertionError("a path has at least one name")


def _words(source: Source, written: str) -> list[Word]:
    return [
        Word(match.group(), Place(source, Span(match.start(), match.end()))) for match in re.finditer(r"\w+", written)
    ]


def _set_name(document: Document, name: Word, source: Source, start: int) -> Document:
    """A path of one name is a `let`, or the name of a block, as in `schedule=gpipe`."""
    if any(binding.name.text == name.text for binding in document.bindings):
        value = parse_set_value(source, start)
        if not isinstance(value, Word | Number | Negative | Chain):
            raise _fault(value.place, "a `let` binds a number", f"write `--set {name.text}=64`")
        bindings = tuple(
            replace(binding, value=value, place=name.place.to(value.place))
            if binding.name.text == name.text
            else binding
            for binding in document.bindings
        )
        return replace(document, bindings=bindings)
    if name.text in ("schedule", "hardware"):
        value = parse_set_value(source, start)
        if not isinstance(value, Word | Number):
            raise _fault(value.place, "not a name", f"write `--set {name.text}=NAME`")
        title = Word(value.text, value.place)
        if not any(block.kind.text == name.text for block in document.blocks):
            return replace(document, blocks=(*document.blocks, Block(name, title, None, (), name.place)))
        blocks = (replace(block, title=title) if block.kind.text == name.text else block for block in document.blocks)
        return replace(document, blocks=tuple(blocks))
    bound = [binding.name.text for binding in document.bindings]
    help = "give the block too, as in `--set mesh.tp=8`"
    close = nearest(name.text, bound)
    raise _fault(name.place, "no `let` binds this name", f"did you mean `{close}`?" if close else help)


def _in_block(document: Document, path: list[Word], change: Callable[[tuple[Item, ...]], tuple[Item, ...]]) -> Document:
    """The document with the items of the block at all but the last of `path` changed; missing blocks are added."""
    kind = path[0]
    if kind.text not in BLOCKS:
        help = did_you_mean(kind.text, BLOCKS, "blocks")
        raise _fault(kind.place, "a plan has no such block", *help)
    blocks = list(document.blocks)
    at = next((n for n, block in enumerate(blocks) if block.kind.text == kind.text), len(blocks))
    block = blocks[at] if at < len(blocks) else Block(kind, None, None, (), kind.place)
    blocks[at : at + 1] = [_changed(block, path[1:-1], change)]
    return replace(document, blocks=tuple(blocks))


def _changed(block: Block, inner: list[Word], change: Callable[[tuple[Item, ...]], tuple[Item, ...]]) -> Block:
    if not inner:
        return replace(block, items=change(block.items))
    kind = inner[0]
    at = next((item for item in block.items if isinstance(item, Block) and item.kind.text == kind.text), None)
    if at is None:
        added = _changed(Block(kind, None, None, (), kind.place), inner[1:], change)
        return replace(block, items=(*block.items, added))
    items = tuple(_changed(at, inner[1:], change) if item is at else item for item in block.items)
    return replace(block, items=items)


def _set_value(items: tuple[Item, ...], name: Word, value: Value) -> tuple[Item, ...]:
    setting = Setting(name, value, name.place.to(value.place))
    return _replaced(items, setting, lambda item: isinstance(item, Setting) and item.name.text == name.text)


def _set_axis(items: tuple[Item, ...], axis: Word, value: Value) -> tuple[Item, ...]:
    """The size of an axis; a fold still folds over what it did, unless the value says over what."""
    axes = {item.name.text: item.value for item in items if isinstance(item, Setting)}
    if axis.text not in axes:
        report = Report()
        headline = f"the mesh has no axis `{axis.text}`"
        report.error("E202", headline, axis.place.label("no such axis"), help=did_you_mean(axis.text, axes, "axes"))
        report.close()
    before = axes[axis.text]
    if isinstance(before, Fold) and isinstance(value, Word | Number | Negative | Chain):
        value = Fold(value, before.over, value.place)
    return _set_value(items, axis, value)


def _set_line(items: tuple[Item, ...], dim: Word, axes: tuple[Word, ...]) -> tuple[Item, ...]:
    """A line of its own for the dim, which leaves the line where it stood."""
    end = axes[-1].place if axes else dim.place
    line = Line((dim,), axes, dim.place.to(end))
    return (*(kept for item in items if (kept := _without(item, dim.text))), line)


def _without(item: Item, dim: str) -> Item | None:
    if not isinstance(item, Line) or all(word.text != dim for word in item.dims):
        return item
    dims = tuple(word for word in item.dims if word.text != dim)
    return replace(item, dims=dims) if dims else None


def _set_bound(items: tuple[Item, ...], name: Word, relation: str | None, value: Value) -> tuple[Item, ...]:
    """A bound in the place of the one of this name; its relation too, unless the value says one."""
    before = next((item for item in items if isinstance(item, Bound) and item.name.text == name.text), None)
    sign = relation or (before.relation if before else None)
    if sign is None:
        raise _fault(value.place, "below or above?", f"write `--set 'require.{name.text}=< {value.place.text}'`")
    assert isinstance(value, Word | Number | Negative | Chain), "a bound is arithmetic"
    bound = Bound(name, sign, value, name.place.to(value.place))
    return _replaced(items, bound, lambda item: isinstance(item, Bound) and item.name.text == name.text)


def _replaced(items: tuple[Item, ...], new: Item, old: Callable[[Item], bool]) -> tuple[Item, ...]:
    """`new` in the place of the first old item, or behind all."""
    first = next((item for item in items if old(item)), None)
    return tuple(new if item is first else item for item in items) if first else (*items, new)


def _fault(place: Place, text: str, *help: str) -> PlanError:
    report = Report()
    report.error("E114", f"`--set {place.source.text}` cannot be followed", place.label(text), help=help)
    try:
        report.close()
    except PlanError as fault:
        return fault
    raise AssertionError("an error closes a report")

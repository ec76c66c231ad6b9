"""Reads the block `mesh`: its axes, the folds over them, and whether they fit together."""

import math
import re

from moec.dsl.mesh import Axis, Mesh, MeshFault
from moec.dsl.reading import Reading
from moec.dsl.schema import Whole
from moec.dsl.settings import once, whole
from moec.dsl.source import Place
from moec.dsl.suggest import did_you_mean, listed
from moec.dsl.syntax import Block, Fold, Setting, Word
from moec.dsl.tilings import say_tilings_apart

MOST_RANKS = 262_144
MOST_AXES = 32
_NAME = re.compile(r"[a-z](?:_?[a-z0-9])*")


def read_mesh(block: Block | None, reading: Reading) -> Mesh | None:
    """The mesh, or None with the faults reported."""
    before = reading.report.errors
    axes = read_axes(block, reading) if block else None
    if axes is None:
        return None
    _check_sizes(axes, reading)
    return _fit(axes, reading) if reading.report.errors == before else None


def read_axes(block: Block, reading: Reading) -> tuple[Axis, ...] | None:
    """The axes, whether or not they fit together; None with the faults reported."""
    before = reading.report.errors
    reading.only(block, (Setting,), "tp = 4")
    written = once((item for item in block.items if isinstance(item, Setting)), reading.report)
    if len(written) > MOST_AXES:
        headline = f"the mesh has {len(written):,} axes, and {MOST_AXES} are the most"
        help = ["make one axis of several"]
        reading.report.error("E201", headline, written[MOST_AXES].place.label("one too many"), help=help)
        return None
    axes = [axis for setting in written if (axis := _read_axis(setting, written, reading))]
    return tuple(axes) if reading.report.errors == before else None


def _read_axis(setting: Setting, written: list[Setting], reading: Reading) -> Axis | None:
    name, value = setting.name, setting.value
    reading.places[f"mesh.{name.text}"] = setting.place
    if not _NAME.fullmatch(name.text) or name.text in ("self", "world"):
        help = ["take small letters, such as `tp` or `data_fast`, and neither `self` nor `world`"]
        reading.report.error("E113", f"`{name.text}` cannot be the name of an axis", name.place.label(), help=help)
        return None
    if not reading.identifier(name, "an axis"):
        return None
    size = whole(value.size if isinstance(value, Fold) else value, Whole(), name.text, reading.names, reading.report)
    over = value.over if isinstance(value, Fold) else ()
    ok = all([_check_over(setting, word, written, reading) for word in over])
    repeated = next((word for n, word in enumerate(over) if word.text in [other.text for other in over[:n]]), None)
    if repeated:
        headline = f"`{name.text}` folds over `{repeated.text}` twice"
        reading.report.error("E211", headline, repeated.place.label("again"), help=["name it once"])
    return Axis(name.text, size, tuple(word.text for word in over)) if size and ok and not repeated else None


def _check_over(fold: Setting, word: Word, written: list[Setting], reading: Reading) -> bool:
    plain = [axis.name.text for axis in written if not isinstance(axis.value, Fold)]
    if word.text in plain:
        return True
    target = next((axis for axis in written if axis.name.text == word.text), None)
    if target is None:
        headline = f"`{fold.name.text}` folds over `{word.text}`, which the mesh does not have"
        help = did_you_mean(word.text, plain, "axes")
        reading.report.error("E202", headline, word.place.label("no such axis"), help=help)
        return False
    what = "itself" if target is fold else f"`{word.text}`, which is a fold too"
    help = [f"fold over axes with ranks of their own: {listed(plain)}"] if plain else []
    reading.report.error("E211", f"`{fold.name.text}` folds over {what}", word.place.label("has no ranks"), help=help)
    return False


def _check_sizes(axes: tuple[Axis, ...], reading: Reading) -> None:
    sizes = {axis.name: axis.size for axis in axes if not axis.over}
    world = math.prod(sizes.values())
    if world > MOST_RANKS:
        largest = max(sizes, key=lambda name: sizes[name])
        headline = f"the mesh has {world:,} ranks, and {MOST_RANKS:,} are the most"
        label = _place(largest, reading).label(f"`{largest}` is the largest axis")
        most = MOST_RANKS * sizes[largest] // world
        help = [f"write `{largest} = {most}` or less" if most else "make the axes smaller"]
        reading.report.error("E201", headline, label, help=help)
    for fold in axes:
        block = math.prod(sizes[name] for name in fold.over)
        if fold.over and fold.size > block:
            headline = f"`{fold.name}` is {fold.size}, and folds over {block} ranks only"
            product = " * ".join(str(sizes[name]) for name in fold.over)
            label = _place(fold.name, reading).label(f"{listed(fold.over)}: {product} = {block}")
            tiles = {axis.name: axis.size for axis in axes if axis.name in fold.over}
            notes = [say_tilings_apart(fold.name, fold.size, tiles)]
            help = [f"a fold re-uses ranks: at most `{fold.name} = {block} over {', '.join(fold.over)}`"]
            reading.report.error("E210", headline, label, help=help, notes=notes)


def _fit(axes: tuple[Axis, ...], reading: Reading) -> Mesh | None:
    try:
        return Mesh(axes)
    except MeshFault as fault:
        sizes = f"sizes of `{fault.axis}` that nest: {', '.join(map(str, fault.sizes[:12]))}"
        label = _place(fault.axis, reading).label(fault.reason)
        headline = f"the blocks of `{fault.axis}` do not nest in the axes it folds over"
        help = [sizes] if fault.sizes else []
        reading.report.error("E209", headline, label, help=help, notes=[fault.why] if fault.why else [])
        return None


def _place(axis: str, reading: Reading) -> Place:
    return reading.places[f"mesh.{axis}"]

"""What the readers of all blocks share: the names of the plan, the report, and where things are written."""

import keyword
from collections.abc import Iterable
from dataclasses import dataclass, field

from moec.dsl.evaluate import Names
from moec.dsl.report import Report
from moec.dsl.schema import SETTINGS
from moec.dsl.settings import Found, Settings, read_settings
from moec.dsl.source import Place
from moec.dsl.syntax import Block, Bound, Item, Line, Naming, Setting, Word

_CALLED = {Setting: "a setting", Bound: "a bound", Line: "a shard line", Naming: "a named weight", Block: "a block"}


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of one plan; `places` fills as it goes."""

    names: Names
    report: Report
    places: dict[str, Place] = field(default_factory=dict)

    def settings(self, block: Block | None, path: str, also: Iterable[str] = ()) -> Settings | None:
        """The settings of a block, all defaults where there is none; None, with the faults reported, if it has any."""
        if block is None:
            return Settings({f"{path}.{name}": Found(entry.default) for name, entry in SETTINGS[path].items()})
        before = self.report.errors
        found = read_settings(block, path, self.names, self.report, also)
        self.places.update((name, entry.place) for name, entry in found.items() if entry.place)
        whole = len(found) == len(SETTINGS[path])  # a value made of a name that failed is not reported again
        return Settings(found) if whole and self.report.errors == before else None

    def only(self, block: Block, kinds: tuple[type[Item], ...], example: str) -> None:
        """Report the items of a block that are of no such kind."""
        for item in block.items:
            if not isinstance(item, kinds):
                headline = f"{_CALLED[type(item)]} does not belong in `{block.kind.text}`"
                help = [_rewritten(item, kinds) or f"write `{example}`"]
                self.report.error("E112", headline, item.place.label("out of place"), help=help)

    def identifier(self, word: Word, what: str) -> bool:
        """Whether a name can be one in Python; reported if not."""
        if word.text.isidentifier() and not keyword.iskeyword(word.text) and not word.text.startswith("_"):
            return True
        why = "a word of Python" if keyword.iskeyword(word.text) else "starts with an underscore"
        headline = f"`{word.text}` cannot be the name of {what}"
        self.report.error("E113", headline, word.place.label(why), help=["choose another name"])
        return False


def _rewritten(item: Item, kinds: tuple[type[Item], ...]) -> str | None:
    """What was meant, where a setting stands for a bound or a shard line, or a bound for a setting."""
    match item:
        case Setting(name=name, value=value) if Bound in kinds:
            return f"a bound is written `{name.text} < {value.place.text}` or `{name.text} > {value.place.text}`"
        case Setting(name=name, value=Word(text=axis)) if Line in kinds:
            return f"write `{name.text} over {axis}`"
        case Line(dims=(dim, *_), axes=axes) if axes and Line not in kinds:
            return f"shard lines stand in `shard {{ {dim.text} over {axes[0].text} }}`"
        case Bound(name=name) if Bound not in kinds and Setting in kinds:
            return f"a setting is written `{name.text} = {item.value.place.text}`; bounds stand in `require {{ ... }}`"
        case _:
            return None

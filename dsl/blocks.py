"""Finds the blocks of a plan: each known, there once, and named as it should be."""

from moec.dsl.report import Report
from moec.dsl.schema import BLOCKS, SCHEDULES
from moec.dsl.source import COMMAND_LINE, Place, Source, Span
from moec.dsl.suggest import did_you_mean, listed
from moec.dsl.syntax import Block, Document, Line

NEEDED = ("model", "mesh", "schedule")
TITLED = ("model", "schedule", "hardware")


def find_blocks(document: Document, report: Report) -> dict[str, Block]:
    """The blocks by their kind; what is unknown, doubled, misnamed or missing is reported."""
    blocks: dict[str, Block] = {}
    meant: set[str] = set()
    for block in document.blocks:
        kind = block.kind.text
        if kind not in BLOCKS:
            help = did_you_mean(kind, BLOCKS, "blocks")
            meant |= {name for name in BLOCKS if f"did you mean `{name}`?" in help}
            report.error("E107", f"a plan has no block `{kind}`", block.kind.place.label("unknown block"), help=help)
        elif kind in blocks:
            labels = block.place.label("given again here"), blocks[kind].place.note("first given here")
            report.error("E108", f"the block `{kind}` is given twice", *labels, help=["make one block of the two"])
        else:
            blocks[kind] = block
            _check_title(block, report)
    missing = [kind for kind in NEEDED if kind not in blocks and kind not in meant]
    if missing:
        _report_missing(document, missing, report)
    return blocks


def _report_missing(document: Document, missing: list[str], report: Report) -> None:
    place = _end(document.source)
    if not document.blocks and not document.bindings:
        help = f"a plan has at least {listed(NEEDED)}"
        report.error("E004", "the plan says nothing", place.label("no block up to here"), help=[help])
        return
    written = {**BLOCKS, "mesh": _mesh_for(document)}
    needed = ["shard"] if "mesh" in missing and all(b.kind.text != "shard" for b in document.blocks) else []
    written["shard"] = "shard { batch over dp }"
    help = [f"write {', '.join(f'`{written[kind]}`' for kind in (*missing, *needed))}"]
    report.error("E111", f"the plan lacks {listed(missing)}", place.label("the plan ends here"), help=help)


def _mesh_for(document: Document) -> str:
    """A mesh of the axes that the plan places dims over, or of one that it could."""
    items = [item for block in document.blocks if block.kind.text == "shard" for item in block.items]
    axes = dict.fromkeys(axis.text for item in items if isinstance(item, Line) for axis in item.axes)
    return f"mesh {{ {'  '.join(f'{axis} = 2' for axis in axes) or 'dp = 2'} }}"


def _end(source: Source) -> Place:
    """The last letter of a text."""
    end = len(source.text.rstrip())
    return Place(source, Span(max(0, end - 1), end))


def _check_title(block: Block, report: Report) -> None:
    kind, title = block.kind.text, block.title
    written = [f"write `{BLOCKS[kind]}`"]
    if block.python and kind != "model":
        report.error("E112", f"`{kind}` is not imported", block.python.place.label("only a model is"), help=written)
    if title is None:
        if kind in ("schedule", "hardware"):
            if block.kind.place.source.path == COMMAND_LINE:
                written = [f"name it too: `--set {kind}={BLOCKS[kind].split()[1]}`"]
            report.error("E111", f"`{kind}` lacks its name", block.kind.place.label("name it here"), help=written)
    elif kind not in TITLED:
        report.error("E112", f"`{kind}` takes no name", title.place.label("take it out"), help=written)
    elif kind == "schedule" and title.text not in SCHEDULES:
        help = did_you_mean(title.text, SCHEDULES, "schedules")
        report.error("E109", f"`{title.text}` is not a schedule", title.place.label("unknown schedule"), help=help)
    elif kind != "schedule" and not title.text.isidentifier():
        help = ["let it start with a letter"]
        report.error("E113", f"`{title.text}` cannot be a name", title.place.label("starts with a digit"), help=help)

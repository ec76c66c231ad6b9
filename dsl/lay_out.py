"""Lays the items of a block out on lines: settings side by side, other items in columns, comments where they were."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from moec.dsl.attach_comments import Remarked
from moec.dsl.comments import Comment
from moec.dsl.print_item import Pieces, print_columns, print_part, print_rest
from moec.dsl.syntax import Binding, Block

WIDTH = 100
"""Columns that a line may take, its comment aside."""

SPACE = "   "
"""Between settings, and before a comment."""

GROUPS = {
    "model": "layers hidden vocab seq | heads kv_heads head_dim | ffn gated | tied norm_eps rope_base",
    "experts": "count hidden top_k gated every | capacity min_capacity route softmax",
    "train": "optimizer lr warmup decay steps final_lr | beta1 beta2 eps weight_decay decayed undecayed clip | "
    "not_finite precision recompute seed",
}
"""By block, the settings that stay together where all of them do not fit on one line."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line, and the comment that ends it."""

    text: str = ""
    beside: str = ""


def with_remarks(part: Remarked, rows: Sequence[Row], begun: bool, gap: bool = False) -> list[Row]:
    """The rows of a part between its comments; `gap` asks for an empty line above, if a line has `begun`."""
    above = with_gaps(part.above, begun, gap)
    if (part.above and part.above[-1].before_gap) or (gap and begun and not part.above):
        above.append(Row())
    return [*above, *rows[:-1], replace(rows[-1], beside=part.beside)]


def with_gaps(comments: Sequence[Comment], begun: bool, gap: bool = False) -> list[Row]:
    """Comments on lines of their own, with the empty lines that stood between them, or one above for `gap`."""
    rows: list[Row] = []
    for n, comment in enumerate(comments):
        if (comment.after_gap or (gap and n == 0)) and (begun or rows):
            rows.append(Row())
        rows.append(Row(comment.text))
    return rows


def put_in_columns(parts: Sequence[Remarked], begun: bool, width: int) -> list[Row]:
    """A line for each item; what stands left of the values is aligned."""
    items = [(part, part.part) for part in parts if not isinstance(part.part, Binding | Block)]
    cells = [print_columns(item) for _, item in items if _fits([print_part(item)], width)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows: list[Row] = []
    for part, item in items:
        written = wrap(print_part(item), width)
        if len(written) == 1:
            left = [f"{text:<{wide}}" for text, wide in zip(print_columns(item), widths, strict=True)]
            written = [Row(" ".join([*left, *print_rest(item)]))]
        rows += with_remarks(part, written, begun or bool(rows))
    return rows


def put_side_by_side(parts: Sequence[Remarked], kind: str, begun: bool, width: int) -> list[Row]:
    """Settings of a block of this kind; a line that ends in a comment stays a line if it fits."""
    rows: list[Row] = []
    for section in _sections(parts, width):
        names = [print_columns(part.part)[0] for part in section if not isinstance(part.part, Binding | Block)]
        lines = _fill([_pieces(part) for part in section], names, kind, width)
        rows += with_remarks(replace(section[0], beside=section[-1].beside), lines, begun or bool(rows))
    return rows


def wrap(pieces: Pieces, width: int) -> list[Row]:
    """The pieces of an item on as many lines as they need, the later ones indented."""
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if len(lines[-1]) + 1 + len(piece) > width:
            lines.append(f"    {piece}")
        else:
            lines[-1] += f" {piece}"
    return [Row(line) for line in lines]


def align(rows: Sequence[Row]) -> list[str]:
    """The text of rows, comments below each other between two empty lines."""
    texts: list[str] = []
    for _, run in groupby(rows, key=lambda row: bool(row.text)):
        lines = list(run)
        column = max((len(row.text) for row in lines if row.beside), default=0)
        texts += [f"{row.text:<{column}}{SPACE}{row.beside}" if row.beside else row.text for row in lines]
    return texts


def _sections(parts: Sequence[Remarked], width: int) -> list[list[Remarked]]:
    """Runs of settings that a comment parts from each other: above the first, or beside the last, which is one line."""
    sections: list[list[Remarked]] = [[]]
    waiting: list[Remarked] = []
    for part in parts:
        waiting.append(part)
        if part.with_next:
            continue
        kept = bool(part.beside) and _fits([_pieces(one) for one in waiting], width)
        if part.beside and not kept:
            comment = Comment(0, part.beside, beside=False, after_gap=False, before_gap=False)
            waiting[0] = replace(waiting[0], above=(*waiting[0].above, comment))
            waiting[-1] = replace(waiting[-1], beside="")
        if kept or waiting[0].above:
            sections.append([])
        sections[-1] += waiting
        if kept:
            sections.append([])
        waiting = []
    return [section for section in sections if section]


def _fill(settings: Sequence[Pieces], names: Sequence[str], kind: str, width: int) -> list[Row]:
    """One line if all fit; else a line or more for each of GROUPS."""
    if _fits(settings, width):
        return [Row(SPACE.join(" ".join(pieces) for pieces in settings))]
    groups = [group.split() for group in GROUPS.get(kind, "").split("|")]
    home = {name: n for n, group in enumerate(groups) for name in group}
    rows: list[Row] = []
    for _, run in groupby(zip(names, settings, strict=True), key=lambda pair: home.get(pair[0], -1)):
        line: list[Pieces] = []
        for _, pieces in run:
            if line and not _fits([*line, pieces], width):
                rows += _line(line, width)
                line = []
            line.append(pieces)
        rows += _line(line, width)
    return rows


def _line(settings: Sequence[Pieces], width: int) -> list[Row]:
    """Settings that fit beside each other, or one that may not fit."""
    return wrap(settings[0], width) if len(settings) == 1 else [Row(SPACE.join(" ".join(one) for one in settings))]


def _fits(settings: Sequence[Pieces], width: int) -> bool:
    return sum(len(" ".join(pieces)) for pieces in settings) + len(SPACE) * (len(settings) - 1) <= width


def _pieces(part: Remarked) -> Pieces:
    assert not isinstance(part.part, Block), "a block is laid out by itself"
    return print_part(part.part)

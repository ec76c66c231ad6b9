"""Writes a plan in its one canonical form, which its words and comments decide, and not the spaces between them."""

from collections.abc import Sequence
from itertools import groupby

from moec.dsl.attach_comments import Body, Remarked, Remarks
from moec.dsl.lay_out import SPACE, WIDTH, Row, align, put_in_columns, put_side_by_side, with_gaps, with_remarks, wrap
from moec.dsl.parse import parse_plan
from moec.dsl.print_item import print_header, print_part
from moec.dsl.source import Source
from moec.dsl.syntax import Binding, Block, Setting
from moec.dsl.text import source_of

LISTS = ("shard", "require", "inputs", "weights")
"""Blocks with a line for every item."""

TRAINING = ("schedule", "train", "communicate", "hardware")
"""Blocks that stand below each other without an empty line, brackets aligned, if each is on one."""

INDENT = "  "


def format_plan(source: Source) -> str:
    """The canonical text of a plan; raises PlanError where it cannot be parsed, or would be too long.

    A text with the same words and comments in the same places gives the same, and so does the result itself.
    """
    document = parse_plan(source)
    remarks = Remarks(source)
    text = "".join(f"{line}\n" for line in align(_lay_out_plan(remarks.of_plan(document), remarks)))
    again = source_of(source.path, text.encode("utf-8", "surrogatepass"))
    assert parse_plan(again) == document, "the canonical text says what the plan said"
    return text


def _lay_out_plan(body: Body, remarks: Remarks) -> list[Row]:
    rows: list[Row] = []
    written = [(part, _lay_out_part(part, remarks)) for part in body.parts]
    for kind, run in groupby(written, key=lambda pair: _kind(*pair)):
        parts = list(run)
        column = max(lines[0].text.find("{") for _, lines in parts) if kind == "training" else 0
        for n, (part, lines) in enumerate(parts):
            aligned = _with_bracket_at(column, lines) if kind == "training" else lines
            rows += with_remarks(part, aligned, bool(rows), gap=n == 0 or kind == "alone")
    return rows + with_gaps(body.closing, bool(rows))


def _lay_out_part(part: Remarked, remarks: Remarks) -> list[Row]:
    if isinstance(part.part, Block):
        return _lay_out_block(part.part, remarks, WIDTH)
    return wrap(print_part(part.part), WIDTH)


def _kind(part: Remarked, rows: Sequence[Row]) -> str:
    """What may stand below its like without an empty line: a `let`, or a block about training on one line."""
    if isinstance(part.part, Binding):
        return "let"
    return "training" if len(rows) == 1 and rows[0].text.split()[0] in TRAINING else "alone"


def _with_bracket_at(column: int, rows: Sequence[Row]) -> list[Row]:
    header, _, rest = rows[0].text.partition("{")
    return [Row(f"{header:<{column}}{{{rest}")]


def _lay_out_block(block: Block, remarks: Remarks, width: int) -> list[Row]:
    """The rows of a block, the last one its end; `width` columns are left for it."""
    header, body = print_header(block), remarks.of_block(block)
    settings = [" ".join(print_part(item)) for item in block.items if isinstance(item, Setting)]
    if body.silent and not block.items:
        return [Row(f"{header} {{ }}")]
    if body.silent and len(settings) == len(block.items) and block.kind.text not in ("model", *LISTS):
        line = f"{header} {{ {SPACE.join(settings)} }}"
        if len(line) <= width:
            return [Row(line)]
    (opening,) = align([Row(f"{header} {{", body.opening)])
    inside = align(_lay_out_body(body, block, remarks, width - len(INDENT)))
    return [Row(opening), *(Row(f"{INDENT}{line}" if line else "") for line in inside), Row("}")]


def _lay_out_body(body: Body, block: Block, remarks: Remarks, width: int) -> list[Row]:
    rows: list[Row] = []
    for kind, run in groupby(body.parts, key=lambda part: type(part.part)):
        parts = list(run)
        if kind is Setting and block.kind.text not in LISTS:
            rows += put_side_by_side(parts, "" if block.python else block.kind.text, bool(rows), width)
        elif kind is not Block:
            rows += put_in_columns(parts, bool(rows), width)
        for part in parts:
            if isinstance(part.part, Block):
                lines = _lay_out_block(part.part, remarks, width)
                rows += with_remarks(part, lines, bool(rows), gap=len(lines) > 1)
    return rows + with_gaps(body.closing, bool(rows))

"""Parses a text into its syntax tree, or says in words what is out of place."""

from dataclasses import replace
from functools import cache
from pathlib import Path

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedInput, UnexpectedToken

from moec.dsl.report import Report
from moec.dsl.scan import scan
from moec.dsl.slips import report_slip
from moec.dsl.source import Place, Source, Span
from moec.dsl.syntax import (
    Binding,
    Block,
    Bound,
    Chain,
    Dims,
    Document,
    Expression,
    Fold,
    Item,
    Line,
    Naming,
    Negative,
    Number,
    Python,
    Setting,
    Tensor,
    Text,
    Texts,
    Value,
    Word,
)


def parse_plan(source: Source) -> Document:
    """The syntax tree of a plan; raises PlanError with every fault that the scan finds, or the first of the grammar."""
    return _parse(source, 0, "plan")


def parse_set_value(source: Source, start: int) -> Value:
    """What stands at `start` of a `--set path=value`, as the value of a setting."""
    return _parse(source, start, "set_value")


def parse_set_bound(source: Source, start: int) -> tuple[str | None, Expression]:
    """The same as a bound: its relation, if one is given, and its value."""
    return _parse(source, start, "set_bound")


def parse_set_axes(source: Source, start: int) -> tuple[Word, ...]:
    """The same as the axes of a shard line, none for `whole`."""
    return _parse(source, start, "set_axes")


def _parse(source: Source, start: int, rule: str):
    report = Report()
    scan(source, report)
    report.close()
    text = " " * start + source.text[start:]  # so that positions stay those of the source
    try:
        tree = _grammar().parse(text, start=rule)
    except UnexpectedInput as fault:
        at, accepted = _slip(fault, text, rule)
        report_slip(source, at, accepted, report)
        report.close()
        raise AssertionError("a slip is an error") from fault
    return _Builder(source).transform(tree)


def _slip(fault: UnexpectedInput, text: str, rule: str) -> tuple[int, frozenset[str]]:
    """The offset of a fault, and the names of the terminals that the parser would take there."""
    if isinstance(fault, UnexpectedToken):
        at = len(text) if fault.token.type == "$END" else fault.pos_in_stream or 0
        return at, frozenset(fault.accepts or fault.expected)
    at = fault.pos_in_stream or 0
    parser = _grammar().parse_interactive(text[:at], start=rule)
    try:
        parser.exhaust_lexer()
    except UnexpectedInput:  # what stands before the fault reads otherwise on its own
        return at, frozenset()
    return at, frozenset(parser.accepts())


@cache
def _grammar() -> Lark:
    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", start=["plan", "set_value", "set_bound", "set_axes"], maybe_placeholders=True)


@v_args(inline=True)
class _Builder(Transformer):
    """Turns Lark's tree into ours, rule by rule."""

    def __init__(self, source: Source):
        super().__init__()
        self._source = source

    def plan(self, *parts: Binding | Block) -> Document:
        bindings = tuple(part for part in parts if isinstance(part, Binding))
        return Document(self._source, bindings, tuple(part for part in parts if isinstance(part, Block)))

    def binding(self, let: Token, name: Token, value: Expression) -> Binding:
        return Binding(self._word(name), value, self._place(let).to(value.place))

    def block(self, kind: Token, *rest: Word | Python | Item | None) -> Block:
        title = next((part for part in rest if isinstance(part, Word)), None)
        python = next((part for part in rest if isinstance(part, Python)), None)
        items = tuple(part for part in rest if isinstance(part, Item))
        word = self._word(kind)
        end = python or title or word
        return Block(word, title, python, items, word.place.to(end.place))

    def title(self, word: Token) -> Word:
        return self._word(word)

    def setting(self, name: Token, value: Value) -> Setting:
        return Setting(self._word(name), value, self._place(name).to(value.place))

    def bound(self, name: Token, relation: Token, value: Expression) -> Bound:
        return Bound(self._word(name), str(relation), value, self._place(name).to(value.place))

    def line(self, dims: tuple[Word, ...], keyword: Token, axes: tuple[Word, ...] = ()) -> Line:
        end = axes[-1].place if axes else self._place(keyword)
        return Line(dims, axes, dims[0].place.to(end))

    def naming(self, pattern: Token, dims: Dims) -> Naming:
        text = self.text(pattern)
        return Naming(text, dims, text.place.to(dims.place))

    def fold(self, size: Expression, over: Token, axes: tuple[Word, ...]) -> Fold:
        return Fold(size, axes, size.place.to(axes[-1].place))

    def tensor(self, kind: Token, dims: Dims, below: Expression | None = None) -> Tensor:
        word = self._word(kind)
        return Tensor(word, dims, below, word.place.to(below.place if below else dims.place))

    def python(self, keyword: Token, target: Text) -> Python:
        return Python(target, self._place(keyword).to(target.place))

    def text(self, literal: Token) -> Text:
        value = str(literal)[1:-1].replace('\\"', '"').replace("\\\\", "\\")
        return Text(value, self._place(literal))

    def texts(self, *literals: Token) -> Texts:
        items = tuple(self.text(literal) for literal in literals)
        return Texts(items, items[0].place.to(items[-1].place))

    def names(self, *names: Token) -> tuple[Word, ...]:
        return tuple(self._word(name) for name in names)

    def dims(self, opening: Token, *rest: Expression | Token | None) -> Dims:
        items = tuple(part for part in rest if part is not None and not isinstance(part, Token))
        closing = next(part for part in reversed(rest) if isinstance(part, Token))
        return Dims(items, self._place(opening).to(self._place(closing)))

    def sum(self, first: Expression, *rest: Expression | Token) -> Chain:
        return self._chain(first, rest)

    def product(self, first: Expression, *rest: Expression | Token) -> Chain:
        return self._chain(first, rest)

    def negative(self, sign: Token, operand: Expression) -> Negative:
        return Negative(str(sign), operand, self._place(sign).to(operand.place))

    def bracket(self, opening: Token, inner: Expression, closing: Token) -> Expression:
        return replace(inner, place=self._place(opening).to(self._place(closing)))

    def number(self, literal: Token) -> Number:
        return Number(str(literal), self._place(literal))

    def name(self, word: Token) -> Word:
        return self._word(word)

    def set_value(self, value: Value) -> Value:
        return value

    def set_bound(self, relation: Token | None, value: Expression) -> tuple[str | None, Expression]:
        return str(relation) if relation else None, value

    def set_axes(self, axes: tuple[Word, ...] | Token) -> tuple[Word, ...]:
        return () if isinstance(axes, Token) else axes

    def _chain(self, first: Expression, rest: tuple[Expression | Token, ...]) -> Chain:
        signs = [str(part) for part in rest[::2]]
        operands = [part for part in rest[1::2] if not isinstance(part, str)]
        return Chain(first, tuple(zip(signs, operands, strict=True)), first.place.to(operands[-1].place))

    def _word(self, token: Token) -> Word:
        return Word(str(token), self._place(token))

    def _place(self, token: Token) -> Place:
        assert token.start_pos is not None and token.end_pos is not None, "the lexer keeps positions"
        return Place(self._source, Span(token.start_pos, token.end_pos))

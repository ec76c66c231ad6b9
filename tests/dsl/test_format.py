"""The canonical form: the same plan with every comment, whatever the spaces were, and its own canonical form."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moec.dsl import PlanError
from moec.dsl.comments import find_comments
from moec.dsl.format_plan import format_plan
from moec.dsl.parse import parse_plan
from moec.dsl.source import Source

ROOT = Path(__file__).resolve().parents[2]
PLANS = sorted([*(ROOT / "examples").glob("*.plan"), *(ROOT / "tests" / "equivalence" / "plans").glob("*.plan")])

WORD = re.compile(r'"[^"]*"|\d[\w.]*(?:e-\d+)?(?: GiB| ms| %| tokens/s)?|\w+|<=|>=|[^\s\w]')

COMMENT = st.sampled_from(["# a", '#b { } "', "# why this and not that, at some length, so that a line is full", "#"])
SPACE = st.one_of(
    st.sampled_from([" ", "\n", "   ", "\t", "\n\n", "\n   \n\n "]),
    COMMENT.map(lambda comment: f" {comment}\n"),
    COMMENT.map(lambda comment: f"\n{comment}\n"),
    COMMENT.map(lambda comment: f"\n\n  {comment}\n\n"),
)
PLAIN_SPACE = st.sampled_from([" ", "\n", "   ", "\n\n", "\n \n  "])
NAME = st.sampled_from(["a", "heads", "layers", "let", "model", "a_very_long_name_of_some_setting", "s", "B", "over_"])
NUMBER = st.sampled_from(
    ["1", "32_000", "1.5", "3e-4", "2E+3", "64 GiB", "50ms", "20 %", "5%", "3 tokens/s", "1x", "2 foo"]
)
TEXT = st.sampled_from(['"m:N"', '"# no comment"', '"a \\" b"', '"*.up.{x}"', '""'])


def joined(*parts: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
    return st.tuples(*parts).map(lambda lists: [word for words in lists for word in words])


def words(*texts: str) -> st.SearchStrategy[list[str]]:
    return st.just(list(texts))


def separated(one: st.SearchStrategy[list[str]], comma: str, least: int = 1) -> st.SearchStrategy[list[str]]:
    return st.lists(one, min_size=least, max_size=5).map(
        lambda many: [word for n, words in enumerate(many) for word in ([comma] if n and comma else []) + words]
    )


SIGN = st.sampled_from(["-", "+"]).map(lambda sign: [sign])
ATOM = st.one_of(NAME, NUMBER).map(lambda word: [word])
EXPRESSION = st.recursive(
    ATOM,
    lambda inner: st.one_of(
        joined(words("("), inner, words(")")),
        joined(SIGN, st.one_of(ATOM, joined(words("("), inner, words(")")))),
        joined(inner, st.sampled_from("+-*/").map(lambda sign: [sign]), inner),
    ),
    max_leaves=12,
)
NAMES = separated(NAME.map(lambda name: [name]), ",")
DIMS = joined(words("["), separated(EXPRESSION, ",", least=0), words("]"))
TENSOR = st.one_of(joined(words("float"), DIMS), joined(words("int"), DIMS, words("<"), EXPRESSION))
PYTHON = TEXT.map(lambda text: ["python", text])
VALUE = st.one_of(EXPRESSION, joined(EXPRESSION, words("over"), NAMES), TENSOR, PYTHON, TEXT.map(lambda text: [text]))
NAMED = NAME.map(lambda name: [name])
SETTING = joined(NAMED, words("="), VALUE)
BOUND = joined(NAMED, st.sampled_from(["<", "<=", ">", ">="]).map(lambda sign: [sign]), EXPRESSION)
LINE = joined(NAMES, st.one_of(words("whole"), joined(words("over"), NAMES)))
NAMING = joined(TEXT.map(lambda text: [text]), st.sampled_from([[], ["="]]), DIMS)
HEADER = st.one_of(
    st.sampled_from(["mesh", "shard", "require", "train", "communicate", "small", "inputs", "weights", "experts"]).map(
        lambda kind: [kind]
    ),
    st.sampled_from(
        [["model", "m"], ["schedule", "1f1b"], ["hardware", "h100"], ["model", "m", "=", "python", '"a:B"']]
    ),
)


def block(items: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
    return joined(HEADER, words("{"), separated(items, "", least=0), words("}"))


ITEM = st.one_of(SETTING, SETTING, SETTING, BOUND, LINE, NAMING)
BLOCK = block(st.one_of(ITEM, ITEM, block(st.one_of(ITEM, block(ITEM)))))
BINDING = joined(words("let"), NAMED, words("="), EXPRESSION)
PLAN = separated(st.one_of(BINDING, BLOCK, BLOCK), "", least=0)


@st.composite
def drawn_text(draw: st.DrawFn, space: st.SearchStrategy[str] = SPACE) -> str:
    """A plan that parses, meaningful or not, spaced and remarked upon in any way."""
    return "".join(word + draw(space) for word in draw(PLAN))


@st.composite
def respaced_plan(draw: st.DrawFn, space: st.SearchStrategy[str] = SPACE) -> str:
    """A plan of the repository with other spaces and comments between its words."""
    source = Source("example", draw(st.sampled_from(PLANS)).read_text(encoding="utf-8"))
    return "".join(word + draw(space) for word in spelt(source))


def spelt(source: Source) -> list[str]:
    """The words of a plan without its comments; a number and its unit are one."""
    plain = "\n".join(line.partition("#")[0] for line in source.text.split("\n"))
    return WORD.findall(plain)


def holds(text: str) -> None:
    source = Source("drawn.plan", text)
    try:
        before = parse_plan(source)
    except PlanError:
        assume(False)
        return
    once = format_plan(source)
    again = Source("formatted.plan", once)
    assert parse_plan(again) == before
    assert [comment.text for comment in find_comments(again)] == [comment.text for comment in find_comments(source)]
    assert format_plan(again) == once


@settings(max_examples=150, deadline=None)
@given(drawn_text())
def test_drawn(text: str) -> None:
    holds(text)


@settings(max_examples=50, deadline=None)
@given(respaced_plan())
def test_respaced(text: str) -> None:
    holds(text)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_spaces_decide_nothing(data: st.DataObject) -> None:
    """Without comments, two texts of the same words have the same form."""
    path = data.draw(st.sampled_from(PLANS))
    words = spelt(Source("example", path.read_text(encoding="utf-8")))
    follows = re.compile(r"[={<>,\[]|over|whole")  # what keeps a name from being the unit of a number before it
    spaces = [" " if follows.match(word) else data.draw(PLAIN_SPACE) for word in words]
    respaced = "".join(space + word for space, word in zip(spaces, words, strict=True))
    assert format_plan(Source("a.plan", respaced)) == format_plan(Source("a.plan", " ".join(words)))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_letters_changed(path: Path) -> None:
    """A plan with a letter changed is formatted or answered with diagnostics."""
    text, draw = path.read_text(encoding="utf-8"), random.Random(path.stem)
    for at in range(0, len(text), 7):
        changed = text[:at] + draw.choice('{}()[]=<>,"#\n _%+-*/.09aes\t') + text[at + 1 :]
        try:
            parse_plan(Source("changed.plan", changed))
        except PlanError:
            continue
        holds(changed)


@pytest.mark.parametrize("path", [*sorted((ROOT / "examples").glob("*.plan")), ROOT / "dsl" / "starter.plan"])
def test_examples_are_canonical(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert format_plan(Source(str(path), text)) == text


FORMS = {
    "a block on one line, and spaces": ("mesh{tp=4 pp=2}", "mesh { tp = 4   pp = 2 }\n"),
    "blocks about training": (
        "schedule gpipe{batch=8}\n\ntrain{lr=1e-3} # slow",
        "schedule gpipe { batch = 8 }\ntrain          { lr = 1e-3 }   # slow\n",
    ),
    "lines of shard": (
        "shard{batch over dp heads,ffn over tp ffn whole}",
        "shard {\n  batch      over dp\n  heads, ffn over tp\n  ffn        whole\n}\n",
    ),
    "bounds": ("require{memory<64GiB mfu>=40%}", "require {\n  memory <  64 GiB\n  mfu    >= 40 %\n}\n"),
    "brackets that say nothing": ("let a=((2)*(3))+1 let b=2*(a-1)", "let a = 2 * 3 + 1\nlet b = 2 * (a - 1)\n"),
    "a comment in a setting": ("train { lr = # fast\n 1 }", "train {\n  # fast\n  lr = 1\n}\n"),
    "a comment beside settings": (
        "train {\n  lr = 1  clip = 2 # both\n\n  seed = 3\n}",
        "train {\n  lr = 1   clip = 2   # both\n  seed = 3\n}\n",
    ),
    "comments apart": ("# a\n\n\n# b\nmesh { }\n# c", "# a\n\n# b\nmesh { }\n# c\n"),
    "a comment beside a bracket": ("mesh { # all\n tp = 2 }", "mesh {   # all\n  tp = 2\n}\n"),
    "settings that do not fit": (
        "model m { layers = 126 hidden = 16_384 vocab = 128_256 seq = 8192 heads = 128 kv_heads = 8 ffn = 53_248 "
        "gated = true }",
        "model m {\n  layers = 126   hidden = 16_384   vocab = 128_256   seq = 8192\n"
        "  heads = 128   kv_heads = 8\n  ffn = 53_248   gated = true\n}\n",
    ),
    "a sum that does not fit": (
        f"let a = {' + '.join(['a_rather_long_name'] * 6)}",
        f"let a = {' + '.join(['a_rather_long_name'] * 4)}\n    + a_rather_long_name + a_rather_long_name\n",
    ),
}


@pytest.mark.parametrize(("text", "form"), FORMS.values(), ids=FORMS)
def test_form(text: str, form: str) -> None:
    assert format_plan(Source("a.plan", text)) == form


def test_a_line_that_would_be_too_long_is_a_fault() -> None:
    """A comment cannot be broken, and may not be lost."""
    comment = "#" + "x" * 9_998
    with pytest.raises(PlanError) as caught:
        format_plan(Source("a.plan", f"train {{\n{comment}\nseed = 2 }}"))
    assert caught.value.diagnostics[0].code == "E002"

"""The page is whole, needs nothing from elsewhere, quotes what users named, stays small, and says what was found."""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path

import pytest

from moec.compiler.cost import Estimate, Mend
from moec.compiler.cost.simulate import Span
from moec.compiler.program import Call, Stage
from moec.compiler.report import report_html
from moec.compiler.report.kinds import kinds_of
from moec.compiler.report.memory_rows import memory_bytes
from moec.compiler.report.spans import spans_of_stages
from moec.dsl.plan import Require

HOSTILE = "</script><script>alert('\"x&amp;\u2028')</script><!--{{7*7}}"
SECTIONS = ("figures", "requirements", "timeline", "memory", "costs", "stages", "mesh", "sources")
VOID = {"meta", "br"}
TEMPLATES = Path(__file__).parents[2] / "compiler" / "report" / "templates"


@dataclass
class Page(HTMLParser):
    """A page as a browser reads it: elements in order, texts by the element that they stand in; tags have to match."""

    text: str
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    @property
    def ids(self) -> list[str]:
        return [name for _, attributes in self.elements if (name := attributes.get("id"))]

    def inside(self, tag: str) -> list[str]:
        return [text for of, text in self.texts if of == tag]

    @property
    def scripts(self) -> list[str]:
        return self.inside("script")

    @property
    def data(self) -> dict:
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def page(small: Estimate) -> Page:
    return Page(report_html(small))


def test_every_section_is_there_once(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    assert set(SECTIONS) <= set(page.ids)
    assert page.inside("h1") == ["tiny_moe"]


def test_every_element_that_the_scripts_ask_for_is_there(page: Page) -> None:
    asked = set(re.findall(r'(?:element|canvasOf|option|legend)\("(\w+)"', page.scripts[1]))
    assert {"data", "spans", "bytes", "ranks", "legend"} <= asked <= set(page.ids)


def test_nothing_comes_from_elsewhere(page: Page) -> None:
    assert "://" not in page.text and "url(" not in page.text and "@import" not in page.text
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {"src", "href", "srcset", "action", "data", "poster"} & set(attributes)
    policy = next(attributes for _, attributes in page.elements if "http-equiv" in attributes)
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def test_names_of_users_are_text(small: Estimate) -> None:
    hostile = Page(report_html(_renamed(small, HOSTILE)))
    plain = Page(report_html(_renamed(small, "plain")))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert hostile.inside("h1") == [HOSTILE]
    assert HOSTILE in hostile.data["stages"][0]["layers"]
    assert HOSTILE in [piece[0] for piece in hostile.data["passes"][0]]
    assert any(HOSTILE in text for text in hostile.inside("td"))


def test_a_name_that_is_no_text_is_written_all_the_same(small: Estimate) -> None:
    assert "\\udcff" in report_html(_renamed(small, "\udcff")).encode().decode()


def test_bounds_say_whether_they_are_kept_and_what_mends_them(small: Estimate) -> None:
    bounds = (Require("memory", "<", Fraction(2**30)), Require("mfu", ">", Fraction(1, 2)))
    plan = replace(small.program.plan, require=bounds)
    found = replace(small, program=replace(small.program, plan=plan))
    mend = Mend("mfu", ">", 0.5, ("mesh.tp=1",), 0.6, True, ("memory",), (), 3)
    page = Page(report_html(found, (mend,)))
    rows = [attributes.get("class") for tag, attributes in page.elements if tag == "tr"]
    assert (rows.count("kept"), rows.count("broken")) == (1, 1)
    assert page.inside("b") == ["✓ keeps", "✗ breaks"]
    assert page.inside("code") == ["--set mesh.tp=1 keeps it: 60.0 %, and breaks memory"]


def test_kinds_of_time_add_up_to_the_step(small: Estimate) -> None:
    for stage in small.time.stages:
        assert sum(kinds_of(stage).values()) == pytest.approx(small.step_seconds, rel=1e-9)


def test_kinds_of_memory_add_up_to_the_peak(small: Estimate) -> None:
    for memory in small.memory:
        assert sum(memory_bytes(memory).values()) == memory.total


def test_spans_on_the_page_are_those_of_the_estimate(small: Estimate, large: Estimate) -> None:
    for found in (small, large):
        data = Page(report_html(found)).data
        for n, spans in enumerate(spans_of_stages(found)):
            _alike(_decoded(data, n), spans, data["tick"])


def test_levels_on_the_page_reach_the_peak_and_end_with_nothing(small: Estimate) -> None:
    data = Page(report_html(small)).data
    for stage, memory in zip(data["stages"], small.memory, strict=True):
        levels = [stage["levels"][step[4]] for step in map(stage["steps"].__getitem__, stage["spans"]) if len(step) > 4]
        assert sum(stage["held"]) + max(kept + working for kept, working, _ in levels) == memory.total
        assert len(levels) == 2 * small.program.plan.schedule.accumulate and levels[-1][2] == 0


def test_a_page_stays_small(small: Estimate, large: Estimate) -> None:
    assert len(large.time.spans) == 64 * 256 * 6
    assert len(report_html(small).encode()) < 100_000
    assert len(report_html(large).encode()) < 1_000_000


@pytest.mark.skipif(not shutil.which("node"), reason="the scripts are run by node")
def test_the_scripts_read_the_data_as_it_was_meant(small: Estimate, page: Page, tmp_path: Path) -> None:
    data = page.data
    names = ("words.js.jinja", "spans.js.jinja")
    parts = [(TEMPLATES / name).read_text(encoding="utf-8") for name in names]
    told = "stages.map((s) => Array.from(s.start, (start, n) => [data.kinds[s.kind[n]], s.micro[n], start, s.end[n]]))"
    ends = "passes.map((pass) => [pass.pieces.length, pass.seconds])"
    stub = f"const document = {{ getElementById: () => ({{ textContent: {json.dumps(page.scripts[0])} }}) }};"
    script = "\n".join([stub, *parts, f"console.log(JSON.stringify([{told}, {ends}]));"])
    (tmp_path / "whole.js").write_text(page.scripts[1], encoding="utf-8")
    (tmp_path / "spans.js").write_text(script, encoding="utf-8")
    subprocess.run(["node", "--check", tmp_path / "whole.js"], check=True)
    run = subprocess.run(["node", tmp_path / "spans.js"], check=True, capture_output=True, text=True)
    stages, passes = json.loads(run.stdout)
    for spans, meant in zip(stages, spans_of_stages(small), strict=True):
        _alike([Span(meant[0].stage, *span) for span in spans], meant, data["tick"])
    times = [done for stage in small.time.stages for done in (stage.forward, stage.backward)]
    assert [count for count, _ in passes] == [sum(times for _, times in done.pieces) for done in times]
    assert [seconds for _, seconds in passes] == pytest.approx([done.seconds for done in times], rel=1e-3)


def _renamed(found: Estimate, name: str) -> Estimate:
    """The plan, a module and a region under another name."""
    plan = replace(found.program.plan, name=name)
    stages = tuple(_with_prefix(stage, name) for stage in found.program.stages)
    first = found.time.stages[0]
    (piece, times), *rest = first.forward.pieces
    forward = replace(first.forward, pieces=((replace(piece, name=name), times), *rest))
    time = replace(found.time, stages=(replace(first, forward=forward), *found.time.stages[1:]))
    return replace(found, program=replace(found.program, plan=plan, stages=stages), time=time)


def _with_prefix(stage: Stage, name: str) -> Stage:
    def renamed(call: Call) -> Call:
        return replace(call, prefix=name)

    turns = [tuple(tuple(renamed(call) for call in turn) for turn in loop.turns) for loop in stage.loops]
    return replace(stage, loops=tuple(replace(loop, turns=each) for loop, each in zip(stage.loops, turns, strict=True)))


def _decoded(data: dict, n: int) -> list[Span]:
    """The spans of a stage, from the page's data."""
    stage, spans, now = data["stages"][n], [], 0
    before: dict[str, int] = {}
    for place in stage["spans"]:
        kind, advance, gap, duration, *_ = stage["steps"][place]
        name = data["kinds"][kind]
        before[name] = before.get(name, -1) + advance
        start, now = now + gap, now + gap + duration
        spans.append(Span(n, name, before[name], start * data["tick"], now * data["tick"]))
    return spans


def _alike(found: list[Span], meant: list[Span], tick: float) -> None:
    """The same but for rounding to a tick, and for what is shorter than that."""
    long = [span for span in meant if round(span.end / tick) > round(span.start / tick)]
    assert [(span.name, span.micro_batch) for span in found] == [(span.name, span.micro_batch) for span in long]
    for one, other in zip(found, long, strict=True):
        assert max(abs(one.start - other.start), abs(one.end - other.end)) < 0.51 * tick

"""The page of a run's metrics needs nothing from elsewhere, quotes what is named, stays small, and loses no peak."""

import json
import math
import random
from html.parser import HTMLParser
from pathlib import Path

import pytest

from moec.cli import main
from moec.compiler.plot import Recorded, Unreadable, plot_html, read_metrics
from moec.compiler.plot.scale import Scale
from moec.compiler.plot.thin import averaged, runs, thin

HOSTILE = "</script><script>alert('\"x&amp;\u2028')</script><!--{{7*7}}"
VOID = {"meta", "br", "path", "circle", "rect"}


class Page(HTMLParser):
    """A page as a browser reads it: tags have to match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID or not (self.get_starttag_text() or "").endswith("/>"):
            self._open.append(tag)
        if tag == "meta":
            self._open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        (self.scripts if self._open and self._open[-1] == "script" else self.said).append(data)

    @property
    def paths(self) -> list[str]:
        return [a["d"] or "" for tag, a in self.tags if tag == "path" and "curve" in (a.get("class") or "")]


def log(path: Path, steps: int, router: str = "layers.0") -> Path:
    draw = random.Random(steps)
    with open(path, "w", encoding="utf-8") as file:
        for step in range(1, steps + 1):
            record = {
                "step": step,
                "loss": 2 + 3 / step + draw.random() / 10,
                "lr": 1e-3,
                "grad_norm": 40.0 if step == steps // 3 else 1 + draw.random(),
                "tokens_per_second": 1000.0,
                "seconds": 0.2,
                "compute": 0.1,
                "communication": 0.07,
                "data": 0.03,
                "memory": 3 << 30,
                "experts": {router: [step, steps, 3, 5]},
                "dropped": {router: 4},
            }
            file.write(json.dumps(record) + "\n")
            if step % 10 == 0:
                file.write(json.dumps({"step": step, "held_out_loss": 2.5}) + "\n")
    return path


def test_page(tmp_path: Path) -> None:
    page = Page(plot_html([read_metrics(log(tmp_path / "a.jsonl", 40), "a.jsonl")]))
    said = " ".join(page.said)
    for words in ("a.jsonl", "40 steps", "gradient norm", "1 GiB", "200 ms", "held out of training", "layers.0"):
        assert words in said or any(words in (a.get("aria-label") or "") for _, a in page.tags), words
    assert len([tag for tag, _ in page.tags if tag == "circle"]) == 4
    assert len([tag for tag, _ in page.tags if tag == "rect"]) == 40 * 4
    assert not [a for tag, a in page.tags if a.get("src") or a.get("href")]
    assert "step 40, expert 0: 45.45 %" in said


def test_several_runs_are_side_by_side(tmp_path: Path) -> None:
    recorded = [read_metrics(log(tmp_path / f"{n}.jsonl", n), f"{n}.jsonl") for n in (30, 60)]
    page = Page(plot_html(recorded))
    losses = page.paths[:2]
    ends = [float(path.rpartition("L")[2].split()[0]) for path in losses]
    assert math.isclose(ends[0] - 74, (ends[1] - 74) * 29 / 59, abs_tol=0.2)  # one axis for both
    assert "30.jsonl" in " ".join(page.said) and "60.jsonl" in " ".join(page.said)


def test_names_are_quoted(tmp_path: Path) -> None:
    recorded = read_metrics(log(tmp_path / "a.jsonl", 12, router=HOSTILE), HOSTILE)
    text = plot_html([recorded])
    page = Page(text)
    assert len(page.scripts) == 2
    assert any(HOSTILE in each for each in page.said)
    data = json.loads(page.scripts[0])
    assert data[0]["series"][0]["name"] == HOSTILE
    assert "<script>alert" not in text


def test_a_long_run_stays_small_and_shows_its_peak(tmp_path: Path) -> None:
    text = plot_html([read_metrics(log(tmp_path / "a.jsonl", 6_000), "a.jsonl")])
    assert len(text) < 600_000
    (norm,) = [chart for chart in json.loads(Page(text).scripts[0]) if "40" in chart["series"][0]["said"]]
    peak = norm["series"][0]["said"].index("40")
    assert norm["series"][0]["steps"][peak] == 6_000 // 3


def test_what_a_run_leaves_out_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1, "loss": 5.0}\n{"step": 2, "loss": null, "skipped": true}\n{"step": 3, "lo')
    recorded = read_metrics(path, "m")
    assert recorded.figures == {"loss": [(1, 5.0)]} and recorded.skipped == (2,)
    page = Page(plot_html([recorded]))
    assert "1 skipped" in " ".join(page.said)
    assert not page.paths and len([tag for tag, _ in page.tags if tag == "circle"]) == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no step is in it yet"),
        ("step 1\n", "line 1 is not JSON"),
        ("[1]\n", "line 1 has no step"),
        ('{"step": "1"}\n', "line 1 has no step"),
        ('{"step": -1}\n', "line 1 has no step"),
        ('{"step": 3, "loss": 1}\n{"step": 2, "loss": 1}\n', "line 2 goes back to step 2"),
        ("[" * 100_000 + "\n", "line 1 is not JSON"),
    ],
)
def test_faults(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(text)
    with pytest.raises(Unreadable, match=why):
        read_metrics(path, "m")


def test_strange_values_are_no_figures(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    strange = '{"step": 1, "loss": 1, "a": true, "b": "x", "c": 1e999, "d": NaN, "experts": [1], "dropped": [3]}\n'
    path.write_text(strange + '{"step": 2, "experts": {"r": [], "s": ["x"], "t": [0, 0]}, "dropped": {"t": 0}}\n')
    recorded = read_metrics(path, "m")
    assert set(recorded.figures) == {"loss"} and set(recorded.experts) == {"t"}
    assert "r" not in plot_html([recorded]).partition("<body>")[2].partition("experts of")[2]


def test_thinning() -> None:
    draw = random.Random(1)
    points = [(step, draw.random()) for step in range(1, 5000)]
    thinned = thin(points, 100)
    assert len(thinned) <= 100 and set(thinned) <= set(points) and thinned == sorted(thinned)
    assert {max(points, key=lambda point: point[1]), min(points, key=lambda point: point[1])} <= set(thinned)
    assert thin(points[:9], 100) == points[:9]
    mean = sum(value for _, value in averaged(points[:4000], 40)) / 40
    assert math.isclose(mean, sum(value for _, value in points[:4000]) / 4000)
    assert [item for run in runs(range(17), 5) for item in run] == list(range(17))


def test_marks_are_round_and_within() -> None:
    draw = random.Random(2)
    for _ in range(500):
        least = draw.uniform(-1, 1) * 10 ** draw.randint(-6, 9)
        scale = Scale.of([least, least + 10 ** draw.uniform(-3, 3) * max(1e-3, abs(least))], 0, 1)
        marks = scale.marks()
        assert 2 <= len(marks) <= 7 and all(-1e-6 <= scale.place(mark) <= 1 + 1e-6 for mark in marks)
        digits = f"{(marks[-1] - marks[0]) / (len(marks) - 1):.3e}".partition("e")[0]
        assert digits in ("1.000", "2.000", "5.000")
    assert Scale.of([2.0, 2.0], 0, 1).marks() and Scale.of([], 0, 1).marks()


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    log(Path("m.jsonl"), 5)
    assert main(["plot", "m.jsonl"]) == 0
    assert capsys.readouterr().out == "m.html shows 5 steps of m.jsonl\n"
    assert Page(Path("m.html").read_text(encoding="utf-8")).tags
    Path("other").mkdir()
    log(Path("other/m.jsonl"), 7)
    assert main(["plot", "m.jsonl", "other/m.jsonl", "-o", "both.html"]) == 0
    assert "other/m.jsonl" in Path("both.html").read_text(encoding="utf-8")


def test_an_empty_record_draws_nothing() -> None:
    assert Page(plot_html([Recorded("nothing", {"strange": [(1, 1.0)]})])).tags

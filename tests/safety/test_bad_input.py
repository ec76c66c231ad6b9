"""Bad plans as a user has them: status 2, a code, the place, a hint, nothing written, and torch not imported.

One process answers all of them, in which torch cannot be imported.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

GOOD = """\
model m {
  layers = 4   hidden = 64   heads = 4   kv_heads = 2   ffn = 128   vocab = 256   seq = 64
  experts { count = 4   hidden = 128   top_k = 1   capacity = 1.25   every = 2 }
}
mesh { pp = 2   dp = 2   tp = 2 }
shard { layers over pp   batch, experts over dp   heads, ffn, vocab over tp }
schedule 1f1b { batch = 16   accumulate = 4 }
require { memory < 64 GiB }
"""


@dataclass(frozen=True)
class Bad:
    """The bytes of a plan, and how it is answered: the code, and line and column, or none where there is no text."""

    plan: bytes
    code: str
    place: str = ""


def bad(old: str, new: str, code: str, place: str) -> Bad:
    """The good plan with a piece replaced."""
    assert GOOD.count(old) == 1, old
    return Bad(GOOD.replace(old, new).encode(), code, place)


def layers(written: str, code: str = "E110", place: str = "2:12") -> Bad:
    return bad("layers = 4", f"layers = {written}", code, place)


TEXTS = {
    "empty": Bad(b"", "E004"),
    "only comments": Bad(b"# nothing\n# more\n", "E004"),
    "invalid UTF-8": Bad(GOOD.encode().replace(b"mesh", b"\xffesh"), "E003", "5:1"),
    "UTF-16": Bad(GOOD.encode("utf-16"), "E003"),
    "NUL": Bad(GOOD.encode().replace(b"mesh", b"mesh\0"), "E003", "5:5"),
    "100 MB": Bad(b"#" * 100_000_000, "E002"),
    "one line of 10 MB": Bad(GOOD.encode() + b" " * 10_000_000, "E002"),
    "one line of 20 KB": Bad(GOOD.encode() + b" " * 20_000, "E002", "9:1"),
    "20,000 brackets": layers("(" * 20_000 + "1" + ")" * 20_000, "E002", "2:1"),
    "20,000 brackets on lines": layers("(\n" * 20_000 + "1", "E005", "33:1"),
    "a sum of 100,000": layers("+".join("1" * 100_000), "E002", ""),
    "a sum of 20,000 on lines": layers("+\n".join("1" * 20_000) + "-65_537", "E110", "2:12"),
    "an unclosed block": bad("tp = 2 }", "tp = 2", "E102", "5:6"),
    "a block within a block": bad("mesh {", "mesh { mesh {", "E102", "5:6"),
    "a setting twice": bad("layers = 4", "layers = 4   layers = 5", "E108", "2:16"),
    "a block twice": Bad((GOOD + "mesh { tp = 2 }\n").encode(), "E108", "9:1"),
    "an unknown setting": bad("hidden = 64 ", "hiden = 64 ", "E107", "2:16"),
    "an unknown block": bad("mesh {", "mehs {", "E107", "5:1"),
    "a look-alike letter": bad("layers = 4", "lаyers = 4", "E103", "2:3"),
    "a look-alike space": bad("layers = 4", "layers\u00a0= 4", "E103", "2:3"),
    "half a plan": Bad(GOOD.encode()[: len(GOOD) // 2], "E101", "5:1"),
    "no plan": Bad(b"\x7fELF\x02\x01\x01\0\0\0", "E003", "1:1"),
}

NUMBERS = {
    "0": layers("0"),
    "-1": layers("-1"),
    "2.5": layers("2.5"),
    "010": layers("010", "E104"),
    "1e400": layers("1e400", "E104"),
    "NaN": layers("NaN", "E104"),
    "2**63": layers("2**63", "E101", "2:14"),
    "9223372036854775808": layers("9223372036854775808"),
    "a word": layers("four", "E106"),
    "a string": layers('"4"', "E109"),
    "nothing": layers("", "E101", "2:22"),
    "a unit that is not wanted": layers("4 ms", "E109"),
    "a unit that is missing": bad("64 GiB", "64", "E109", "8:20"),
    "a unit of another kind": bad("64 GiB", "64 ms", "E109", "8:20"),
    "a unit that is none": bad("64 GiB", "64 Gib", "E109", "8:20"),
    "10**9 ranks": bad("dp = 2", "dp = 1_000_000_000", "E201", "5:17"),
}

MESHES = {
    "an axis twice": bad("tp = 2 }", "tp = 2   tp = 4 }", "E108", "5:35"),
    "an axis that is missing": bad("pp = 2   dp", "dp", "E202", "6:21"),
    "an axis that splits nothing": bad("heads, ffn, vocab over tp", "", "E204", "5:26"),
    "heads": bad("heads = 4   kv", "heads = 3   kv", "E302", "2:30"),
    "heads that share": bad("kv_heads = 2", "kv_heads = 3", "E301", "2:42"),
    "key and value heads": bad("kv_heads = 2", "kv_heads = 1", "E203", "6:51"),
    "ffn": bad("ffn = 128", "ffn = 127", "E203", "6:58"),
    "experts": bad("count = 4", "count = 5", "E203", "6:33"),
    "the batch": bad("batch = 16", "batch = 12", "E214", "7:17"),
    "the sequence": Bad(
        GOOD.replace("seq = 64", "seq = 63").replace("heads, ffn", "seq, ffn").encode(), "E203", "6:51"
    ),
    "more stages than layers": bad("pp = 2", "pp = 8", "E213", ""),
    "a fold over too few ranks": bad("tp = 2 }", "tp = 2   ep = 16 over dp, tp }", "E210", "5:35"),
    "a fold that does not nest": bad("tp = 2 }", "tp = 2   ep = 3 over dp, tp }", "E209", "5:35"),
    "a fold over itself": bad("tp = 2 }", "tp = 2   ep = 2 over ep }", "E211", "5:47"),
    "more experts chosen than there are": bad("top_k = 1", "top_k = 5", "E303", ""),
    "capacity 0": bad("capacity = 1.25", "capacity = 0", "E110", "3:63"),
}

ROWS = {**TEXTS, **NUMBERS, **MESHES}

ANSWER = """
import contextlib, io, json, pathlib, sys
sys.modules["torch"] = None  # an import of it fails
from moec.cli import main
said = {}
for path in sorted(pathlib.Path().glob("*.plan")):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(["compile", path.name, "-o", "out"])
        except ModuleNotFoundError:
            status = "would be compiled"
    said[path.stem] = (status, out.getvalue(), err.getvalue())
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Answer:
    status: int | str
    out: str
    err: str


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    folder = tmp_path_factory.mktemp("bad")
    for number, row in enumerate(ROWS.values()):
        (folder / f"{number}.plan").write_bytes(row.plan)
    run = subprocess.run([sys.executable, "-c", ANSWER], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert not [path for path in folder.iterdir() if path.suffix != ".plan"]
    said = json.loads(run.stdout)
    return {name: Answer(*said[str(number)]) for number, name in enumerate(ROWS)}


@pytest.mark.parametrize("name", ROWS)
def test_is_answered(name: str, answers: dict[str, Answer]) -> None:
    answer, row = answers[name], ROWS[name]
    first = answer.err.partition("\n\n")[0]
    assert answer.status == 2 and not answer.out and "Traceback" not in answer.err
    assert first.startswith(f"error[{row.code}]: "), first
    assert "= help: " in first or " is expected " in first, first
    if row.code not in ("E001", "E002", "E003", "E004") or row.place:
        assert re.search(rf" --> \d+\.plan:{row.place or '[0-9]+:[0-9]+'}\n", first), first


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["none.plan"], "E001"),
        (["."], "E001"),
        ([os.devnull], "E001"),
        (["none/at/all.plan"], "E001"),
        (["good.plan", "--set", "mesh.tp"], "E114"),
        (["good.plan", "--fast"], "E115"),
        (["good.plan", "-o", "good.plan"], "E501"),
        (["good.plan", "-o", "good.plan/in/it"], "E501"),
        (["good.plan", "-o", "held"], "E503"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_the_command(arguments: list[str], code: str, tmp_path: Path) -> None:
    """As a process of its own, which has to be quick as well."""
    (tmp_path / "good.plan").write_text(GOOD)
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "thesis.txt").write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    run = subprocess.run(
        [sys.executable, "-m", "moec", "compile", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 2 and not run.stdout and "Traceback" not in run.stderr
    assert f"error[{code}]: " in run.stderr and "= help: " in run.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_good_texts(tmp_path: Path) -> None:
    """A byte-order mark, line ends of DOS, and a file of several names are no faults."""
    (tmp_path / "dos.plan").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    (tmp_path / "link.plan").symlink_to("dos.plan")
    for name in ("dos.plan", "link.plan"):
        run = subprocess.run([sys.executable, "-m", "moec", "show", name], cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0 and "8 ranks" in run.stdout, run.stderr

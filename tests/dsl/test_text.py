"""Files that hold no plan, and texts made to take long."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from count_calls import count_calls

from moec.dsl import PlanError, read_plan
from moec.dsl.text import MOST_BYTES, read_bytes


def fault(path: Path | str) -> tuple[str, str]:
    with pytest.raises(PlanError) as caught:
        read_plan(str(path))
    (diagnostic,) = caught.value.diagnostics
    return diagnostic.code, diagnostic.headline


def test_missing(tmp_path: Path) -> None:
    assert fault(tmp_path / "none.plan")[0] == "E001"
    assert fault(tmp_path / "no" / "folder.plan")[0] == "E001"
    assert fault("")[0] == "E001"
    assert fault("a\0b")[0] == "E001"


def test_folder(tmp_path: Path) -> None:
    assert "is a folder" in fault(tmp_path)[1]


def test_no_file() -> None:
    assert fault(os.devnull)[0] == "E001"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "secret.plan"
    path.touch(mode=0)
    assert "may not be read" in fault(path)[1]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "E004"),
        (b"\n \t\n", "E004"),
        (b"\xef\xbb\xbf", "E004"),
        (b"mesh { tp = \xff }", "E003"),
        ("mesh { tp = 2 }".encode("utf-16"), "E003"),
        (b"mesh { tp\0 = 2 }", "E003"),
        (b"#" * MOST_BYTES + b"\n", "E002"),
        (b"#" * 20_000, "E002"),
        (b"(" * 9000, "E005"),
    ],
)
def test_no_plan(tmp_path: Path, data: bytes, code: str) -> None:
    (tmp_path / "bad.plan").write_bytes(data)
    assert fault(tmp_path / "bad.plan")[0] == code


def test_line_ends_and_byte_order_mark(tmp_path: Path, dense: str) -> None:
    (tmp_path / "dos.plan").write_bytes(b"\xef\xbb\xbf" + dense.replace("\n", "\r\n").encode())
    assert read_plan(str(tmp_path / "dos.plan")).mesh.world_size == 8


def filled(before: str, items: Iterator[str], after: str) -> str:
    """As many items as a plan can hold."""
    text, size = [before], len(before) + len(after)
    for item in items:
        size += len(item)
        if size > MOST_BYTES:
            return "".join(text) + after
        text.append(item)
    raise AssertionError("items have no end")


MOST_CALLS = 4_000_000
"""Of Python functions, in which any text is answered. Work that grows with the square of a text takes far more."""

HOSTILE = {
    "a long sum": lambda: filled("model m { layers = 1", ("+1\n" for _ in count()), " }"),
    "unknown settings": lambda: filled("model m { ", (f"hidde{n} = 1\n" for n in count()), " }"),
    "one setting again and again": lambda: filled("model m { ", ("layers=1\n" for _ in count()), " }"),
    "axes": lambda: filled("mesh { ", (f"a{n}=1\n" for n in count()), " }"),
    "blocks": lambda: filled("", (f"b{n}{{}}\n" for n in count()), ""),
    "names": lambda: filled("let a0=3\n", (f"let a{n + 1}=a{n}*a{n}\n" for n in count()), ""),
    "shard lines": lambda: filled("shard { ", (f"b{n} over ep\n" for n in count()), " }"),
    "dims": lambda: filled('model = python "a:b" { weights { "a" [d', (f", d{n}\n" for n in count()), "] } }"),
    "quotes": lambda: filled("model m { ", ('"\n' for _ in count()), " }"),
}


LONGEST = ("a long sum", "unknown settings", "axes", "blocks")
MARKED = [
    pytest.param(make, id=name, marks=pytest.mark.sweep if name in LONGEST else ()) for name, make in HOSTILE.items()
]


@pytest.mark.parametrize("make", MARKED)
def test_hostile(tmp_path: Path, make) -> None:
    (tmp_path / "long.plan").write_text(make(), encoding="utf-8")

    def read() -> None:
        with pytest.raises(PlanError):
            read_plan(str(tmp_path / "long.plan"))

    assert count_calls(read) < MOST_CALLS


def test_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.plan"
    with open(path, "wb") as file:
        file.truncate(100 * 2**20)
    assert fault(path)[0] == "E002"
    assert len(read_bytes(str(path))) == MOST_BYTES + 1

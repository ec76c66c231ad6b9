"""Every message as the documents beside this file and the pages of `moec explain` show it.

A case is what stands under a heading: a plan, which is `test.plan`; a module, which is `mine.py`; and then either
options for reading the plan, or commands as in a shell. Its `text` is what is written to standard error. The folder of
the case is left out of it.

`python tests/diagnostics/test_diagnostics.py` writes the messages anew; read the difference before you commit it.
"""

import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from moec.cli import main
from moec.dsl import PlanError, read_plan, render
from moec.dsl.codes import CODES

HERE = Path(__file__).parent
PAGES = HERE.parents[1] / "dsl" / "pages"
BLOCK = re.compile(r"```(?P<kind>plan|python|console|text)\n(?P<text>(?s:.*?))```\n|^`(?P<options>--set .*)`$", re.M)
OF_THE_MACHINE = {"E117"}
"""Told with numbers that differ between machines; tested in tests/verify."""

WITHOUT_EXAMPLE = OF_THE_MACHINE | {"E502"}
"""Pages whose example would be another one on another machine."""


@dataclass(frozen=True)
class Case:
    """What is there, and what is done with it."""

    plan: str = ""
    module: str = ""
    options: str = ""
    commands: str = ""


@dataclass(frozen=True)
class Told:
    """A case and the message that is shown below it; where both stand in which file."""

    path: Path
    title: str
    case: Case
    message: str
    start: int
    end: int
    """Of the message."""


def read_cases(path: Path) -> list[Told]:
    """The cases of a document, one for each heading of the second level, or of a page, which is one."""
    text = path.read_text(encoding="utf-8")
    starts = [found.start() for found in re.finditer(r"^## ", text, re.M)] if path.parent == HERE else [0]
    cases = (_read_case(path, text, start, end) for start, end in zip(starts, [*starts[1:], len(text)], strict=True))
    return [case for case in cases if case]


def _read_case(path: Path, text: str, start: int, end: int) -> Told | None:
    found: dict[str, str] = {}
    for block in BLOCK.finditer(text, start, end):
        kind = block["kind"] or "options"
        found[kind] = block["options"] or block["text"]
        if kind == "text":
            case = Case(*(found.get(name, "") for name in ("plan", "python", "options", "console")))
            title = text[start:].partition("\n")[0].lstrip("# ")
            return Told(path, title, case, block["text"], block.start("text"), block.end("text"))
    return None


CASES = [case for path in sorted(HERE.glob("*.md")) for case in read_cases(path)]
EXAMPLES = [case for path in sorted(PAGES.glob("*.md")) for case in read_cases(path)]


@pytest.mark.parametrize("told", [*CASES, *EXAMPLES], ids=lambda told: f"{told.path.stem}: {told.title}")
def test_message(told: Told) -> None:
    assert said(told.case) == told.message


def test_every_code_has_a_case() -> None:
    shown = {code for told in CASES for code in codes_in(told.message)}
    assert shown == set(CODES) - OF_THE_MACHINE


def test_every_code_has_a_page() -> None:
    assert {path.stem for path in PAGES.glob("*")} == set(CODES)
    for code, meaning in CODES.items():
        page = (PAGES / f"{code}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {code}: {meaning}\n\n"), code


def test_the_example_of_a_page_gives_its_code_and_no_other() -> None:
    shown = {told.path.stem: codes_in(told.message) for told in EXAMPLES}
    assert shown == {code: {code} for code in CODES if code not in WITHOUT_EXAMPLE}


def test_every_case_is_read() -> None:
    titles = sum(len(re.findall("^## ", path.read_text(encoding="utf-8"), re.M)) for path in HERE.glob("*.md"))
    assert len(CASES) == titles > 0


def codes_in(message: str) -> set[str]:
    return set(re.findall(r"^(?:error|warning)\[(\w+)\]", message, re.M))


@cache
def said(case: Case) -> str:
    """What moec says about a case, in a folder of its own."""
    with TemporaryDirectory() as folder, chdir(folder):
        for name, text in (("test.plan", case.plan), ("mine.py", case.module)):
            if text:
                Path(name).write_text(text, encoding="utf-8")
        try:
            said = _said_by_commands(case.commands) if case.commands else _said_in_reading(case.options)
        finally:
            sys.modules.pop("mine", None)
            sys.path[:] = [entry for entry in sys.path if not entry.startswith(os.path.realpath(folder))]
            importlib.invalidate_caches()
        return said.replace(f"{os.path.realpath(folder)}/", "")


def _said_in_reading(options: str) -> str:
    overrides = [option.strip().strip("'") for option in re.split(r"--set ", options)[1:]]
    try:
        return render(read_plan("test.plan", overrides).warnings)
    except PlanError as fault:
        return render(fault.diagnostics)


def _said_by_commands(commands: str) -> str:
    """Commands of moec run in this process, which has torch already; the others prepare the folder."""
    said = io.StringIO()
    for command in commands.splitlines():
        words = shlex.split(command.removeprefix("$ "))
        if words[0] == "moec":
            with redirect_stderr(said), redirect_stdout(io.StringIO()):
                main(words[1:])
        else:
            subprocess.run(command.removeprefix("$ "), shell=True, check=True)
    return said.getvalue().removesuffix("\n")


def _update() -> None:
    for path in (*sorted(HERE.glob("*.md")), *sorted(PAGES.glob("*.md"))):
        text = path.read_text(encoding="utf-8")
        for told in reversed(read_cases(path)):
            text = text[: told.start] + said(told.case) + text[told.end :]
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _update()

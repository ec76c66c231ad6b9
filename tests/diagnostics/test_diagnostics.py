"""Every message as the documents beside this file show it: a plan, options of the command line, and what moec says.

`python tests/diagnostics/test_diagnostics.py` writes the messages anew; read the difference before you commit it.
"""

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from moec.dsl import PlanError, read_plan, render
from moec.dsl.codes import CODES

HERE = Path(__file__).parent
CASE = re.compile(
    r"## (?P<title>.*)\n\n```plan\n(?P<plan>(?s:.*?))```\n(?:\n`(?P<options>--set .*)`\n)?"
    r"\n```text\n(?P<message>(?s:.*?))```\n"
)
CASES = [(path, case) for path in sorted(HERE.glob("*.md")) for case in CASE.finditer(path.read_text(encoding="utf-8"))]
NEVER_HERE = {"E001", "E002", "E115", "E116", "E501", "E502", "E503", "E504"}
"""Codes of files, of the command line and of folders: tested in tests/dsl and tests/cli."""

TRACED = {code for code in CODES if code.startswith("E4")}
"""Codes of what only a trace shows: these messages come from reading alone. Tested in tests/equivalence."""


@pytest.mark.parametrize(
    "case", [case for _, case in CASES], ids=[f"{path.stem}: {case['title']}" for path, case in CASES]
)
def test_message(case: re.Match[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said(case["plan"], case["options"]) == case["message"]


def test_every_code_is_shown() -> None:
    shown = {code for _, case in CASES for code in re.findall(r"\[([EW]\d{3})\]", case["message"])}
    assert set(CODES) - shown == NEVER_HERE | TRACED


def test_every_case_is_read() -> None:
    titles = sum(path.read_text(encoding="utf-8").count("\n## ") for path in HERE.glob("*.md"))
    assert len(CASES) == titles > 0


def said(plan: str, options: str | None) -> str:
    """What moec says about a plan in the working folder."""
    Path("test.plan").write_text(plan, encoding="utf-8")
    overrides = [option.strip().strip("'") for option in re.split(r"--set ", options or "")[1:]]
    try:
        return render(read_plan("test.plan", overrides).warnings)
    except PlanError as fault:
        return render(fault.diagnostics)


def _update() -> None:
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        for path in sorted(HERE.glob("*.md")):
            text = path.read_text(encoding="utf-8")
            for case in CASE.finditer(text):
                old = f"```text\n{case['message']}```"
                new = f"```text\n{said(case['plan'], case['options'])}```"
                text = text.replace(case.group(), case.group().replace(old, new))
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _update()

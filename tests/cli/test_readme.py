"""The messages that the README shows are those that its commands give."""

import re
import shlex
from pathlib import Path

import pytest

from moec.cli import main

ROOT = Path(__file__).resolve().parents[2]


def test_messages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"`(moec check .*)` says, first of two:\n\n```\n((?s:.*?))```", readme)
    shown += re.findall(r"\$ (moec check .*)\n((?s:error\[.*?))```", readme)
    assert len(shown) == 2
    monkeypatch.chdir(ROOT)
    for command, message in shown:
        assert main(shlex.split(command)[1:]) == 2
        assert capsys.readouterr().err.startswith(message)

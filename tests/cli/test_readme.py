"""What the README shows is what its commands give, but for rounding errors and seconds."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from moec.cli import main

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_messages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.findall(r"`(moec check .*)` says, first of two:\n\n```\n((?s:.*?))```", README)
    shown += re.findall(r"\$ (moec check .*)\n((?s:error\[.*?))```", README)
    assert len(shown) == 2
    monkeypatch.chdir(ROOT)
    for command, message in shown:
        assert main(shlex.split(command)[1:]) == 2
        assert capsys.readouterr().err.startswith(message)


def test_proofs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (command, equal), (build, different) = (
        *re.findall(r"\$ (moec verify .*)\n((?s:.*?))```", README),
        *re.findall(r"```\n(moec verify .* --build .*)\n```\n\nWith the .*\n\n```\n((?s:.*?))```", README),
    )
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    main(["compile", "examples/tiny_moe.plan"])
    capsys.readouterr()
    assert main(shlex.split(command)[1:]) == 0
    assert rounded(capsys.readouterr().out) == rounded(equal)
    stage = tmp_path / "build" / "tiny_moe" / "stage_1.py"
    text, gone = re.subn(r"    ffn_out = all_reduce\(ffn_out.*\n", "", stage.read_text(encoding="utf-8"))
    assert gone == 1
    stage.write_text(text, encoding="utf-8")
    assert main(shlex.split(build)[1:]) == 1
    assert rounded(capsys.readouterr().out) == rounded(different)


def test_estimate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (command, shown), *_ = re.findall(r"\$ (moec estimate .*)\n((?s:.*?))```", README)
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(command)[1:]) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.rstrip().splitlines()]
    assert printed[-1].startswith("traced in")
    assert printed[:-2] == shown.rstrip().splitlines()


def rounded(text: str) -> str:
    """Without the digits that another machine may round otherwise: seconds, and errors of what is equal."""
    text = re.sub(r"\d+\.\d s\)", "0.0 s)", text)
    return re.sub(r"\d\.\de-1\d", "0.0e-16", text)

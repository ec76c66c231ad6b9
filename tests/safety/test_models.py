"""Modules of a user's that are at fault: told by code, place and name, and nothing of theirs runs but themselves."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from moec.cli import main

PLAN = """
model m = python "{module}:Net" {{
  width = 12   layers = 2
  small {{ width = 6 }}
  inputs {{ x = float[batch, width] }}
  {weights}
}}
mesh {{ dp = 2 }}
shard {{ batch over dp }}
schedule gpipe {{ batch = 8 }}
"""

NET = """
import torch
from torch import nn


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x):
        return x + self.inner(x)


class Net(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x.square().mean()
"""


@dataclass(frozen=True)
class Faulty:
    """A module, and what moec says of it."""

    source: str
    code: str
    said: tuple[str, ...]
    weights: str = ""


CALL = "x = layer(x)"
AT = "faulty.py:22:"
"""Where that stands, once it is another line."""

TIE = "        self.layers[1].inner = self.layers[0].inner"


def instead(old: str, new: str) -> str:
    assert old in NET
    return NET.replace(old, new)


FAULTY = {
    "raises at import": Faulty("1 / 0", "E401", ("ZeroDivisionError: division by zero",)),
    "exits at import": Faulty("import sys\nsys.exit(3)", "E401", ("SystemExit",)),
    "is no Python": Faulty("def", "E401", ("SyntaxError",)),
    "imports what is absent": Faulty("import no_such_module", "E401", ("No module named 'no_such_module'",)),
    "has no such class": Faulty("import torch", "E401", ("no such name",)),
    "has one of almost that name": Faulty(instead("class Net", "class Nets"), "E401", ("did you mean `Nets`?",)),
    "has a function instead": Faulty("def Net(): ...", "E401", ("not a torch.nn.Module class",)),
    "raises when it is made": Faulty(instead("super().__init__()", "raise KeyError('boom')"), "E402", ("boom",)),
    "exits when it is made": Faulty(instead("super().__init__()", "raise SystemExit"), "E402", ("SystemExit",)),
    "takes other arguments": Faulty(instead("width, layers)", "width)"), "E402", ("unexpected keyword argument",)),
    "raises in its forward": Faulty(instead(CALL, "raise KeyError('boom')"), "E403", ("boom", f"{AT} raise KeyError")),
    "exits in its forward": Faulty(instead(CALL, "raise SystemExit"), "E403", ("SystemExit", f"{AT} raise")),
    "branches on data": Faulty(instead(CALL, "x = x if x.sum() > 0 else -x"), "E403", (AT, "depend on data")),
    "has a torch.cond": Faulty(
        instead(CALL, "x = torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))"), "E403", (AT, "depend on data")
    ),
    "reads a value": Faulty(instead(CALL, "x = x * x.sum().item()"), "E403", (AT, "depend on data")),
    "has an operator without a rule": Faulty(
        instead(CALL, "x = layer(x).cumprod(0)"), "E409", ("cumprod", f"{AT} x = layer(x).cumprod(0)")
    ),
    "draws random numbers": Faulty(instead(CALL, "x = torch.dropout(x, 0.5, True)"), "E413", (AT, "dropout")),
    "gives no loss": Faulty(instead("x.square().mean()", "x"), "E410", ("a scalar",)),
    "gives nothing": Faulty(instead("return x.square().mean()", "pass"), "E410", ("a scalar",)),
    "gives a loss of no weight": Faulty(instead(CALL, "pass"), "E410", ("any weight",)),
    "ties weights of layers": Faulty(
        instead("    def forward(self, x):\n        for", f"{TIE}\n\n    def forward(self, x):\n        for"),
        "E408",
        ("layers.1.inner.weight", "layers.0.inner.weight"),
    ),
    "has no such weight": Faulty(NET, "E414", ("leyers.*", "layers.0.inner.weight"), 'weights { "leyers.*" [_] }'),
    "has other dims": Faulty(NET, "E414", ("names 1 dims",), 'weights { "layers.*.weight" [_] }'),
}


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What a compile of a module says, which must fail with status 2 and write nothing."""
    monkeypatch.chdir(tmp_path)

    def compiled(source: str | None, weights: str = "", module: str = "faulty") -> str:
        if source is not None:
            (tmp_path / "faulty.py").write_text(source)
        (tmp_path / "m.plan").write_text(PLAN.format(module=module, weights=weights))
        before = set(sys.modules)
        path = list(sys.path)
        try:
            status = main(["compile", "m.plan"])
        finally:
            sys.path[:] = path
            for name in ("faulty", *(set(sys.modules) - before)):
                if name.startswith(("faulty", "absent")):
                    sys.modules.pop(name, None)
        out, err = capsys.readouterr()
        assert status == 2 and not (tmp_path / "build").exists(), out
        return err

    return compiled


@pytest.mark.parametrize("faulty", FAULTY.values(), ids=FAULTY)
def test_is_told(faulty: Faulty, said) -> None:
    text = said(faulty.source, faulty.weights)
    assert f"error[{faulty.code}]" in text and "Traceback" not in text and "m.plan:" in text and "= help:" in text
    for words in faulty.said:
        assert words in text, text


@pytest.mark.parametrize("module", ["absent", "absent.inner", "faulty.inner"])
def test_is_absent(module: str, said) -> None:
    text = said(NET, module=module)
    assert "error[E401]" in text and "No module named" in text and "m.plan:2:" in text


def test_prints_at_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It does not get between what moec says to machines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("talkative.py").write_text(f"print('hello')\n{instead(CALL, f'print(1); {CALL}')}")
    Path("m.plan").write_text(PLAN.format(module="talkative", weights=""))
    assert main(["check", "m.plan", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["valid"] and "hello" in err

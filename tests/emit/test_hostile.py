"""Nothing of the plan's text, of its file's name or of the user's module gets into the programs unescaped."""

import ast
import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from moec.compiler.emit import emit
from moec.compiler.pipeline import compile_plan
from moec.compiler.program import Program
from moec.compiler.verify import verify
from moec.dsl import read_plan

PLAN = """
model m = python "hostile_module:Hostile" {
  width = 12   layers = 4   word = "{{7*7}}'''@@@__import__"
  small { width = 6 }
  inputs { x = float[batch, width] }
}
mesh { pp = 2   dp = 2 }
shard { layers over pp   batch over dp }
schedule 1f1b { batch = 8   accumulate = 2 }
"""

STEMS = (
    'a"""b',
    "back\\slash",
    "ends\\",
    'ends"',
    "{{7*7}}",
    "{name}",
    "größe",
    "two words",
    "class",
    "line\nbreak",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where plans can be that import the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield tmp_path_factory.mktemp("plans")


@pytest.fixture(scope="module")
def hostile(folder: Path) -> Program:
    return _compiled(folder, PLAN)


@pytest.mark.parametrize("stem", STEMS, ids=range(len(STEMS)))
def test_the_code_is_the_same_whatever_the_plan_is_called(hostile: Program, stem: str) -> None:
    plan = replace(hostile.plan, name=stem, source=replace(hostile.plan.source, path=f"{stem}.plan"))
    plain, renamed = emit(hostile), emit(replace(hostile, plan=plan))
    assert plain.keys() == renamed.keys()
    for name in plain:
        if name.endswith(".py"):
            assert _code(renamed[name]) == _code(plain[name]), name


def test_weights_keep_their_names(hostile: Program) -> None:
    names = set(vars(importlib.import_module("hostile_module"))["NAMES"])
    files = emit(hostile)
    assert {f"layers.0.{name}" for name in names} <= set(json.loads(files["plan.json"])["weights"])
    strings = {node.value for node in ast.walk(ast.parse(files["stage_0.py"])) if isinstance(node, ast.Constant)}
    assert names <= strings


def test_it_is_equal_to_the_module(hostile: Program) -> None:
    verdict = verify(hostile.plan, hostile, None)
    assert verdict.equal, verdict.faults


def test_a_module_called_like_a_keyword(folder: Path) -> None:
    program = _compiled(folder, PLAN.replace(":Hostile", ":Keyword"))
    verdict = verify(program.plan, program, None)
    assert verdict.equal, verdict.faults


def _compiled(folder: Path, text: str) -> Program:
    path = folder / "hostile.plan"
    path.write_text(text, encoding="utf-8")
    return compile_plan(read_plan(str(path), []))


def _code(text: str) -> str:
    """A file without its docstring and comments."""
    tree = ast.parse(text)
    assert ast.get_docstring(tree) is not None
    return ast.dump(ast.Module(tree.body[1:], []))

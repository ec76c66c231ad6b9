"""What every emitted file is: Python that parses, in lines of 120, that imports torch and moec.runtime and no more."""

import ast
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from compiled import emitted

EXAMPLES = Path(__file__).parents[2] / "examples"

EMIT = """
import hashlib, sys
from moec.compiler.emit import emit
from moec.compiler.pipeline import compile_plan
from moec.dsl import read_plan
files = emit(compile_plan(read_plan(sys.argv[1], [])))
print(hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest(), hash("a"))
"""

ALLOWED = ("torch", "moec.runtime", "pathlib")


def test_files(example: Path) -> None:
    """Each parses, is of ASCII lines of at most 120 columns, and ends in one newline."""
    files = emitted(example)
    for name, text in files.items():
        assert text.endswith("\n") and not text.endswith("\n\n"), name
        if not name.endswith(".py"):
            continue
        long = [line for line in text.splitlines() if len(line) > 120 or line != line.rstrip()]
        assert long == [], f"{name}: {long[:1]}"
        for node in ast.walk(ast.parse(text)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                here = f"{module}.py" in files
                assert here or any(module == known or module.startswith(f"{known}.") for known in ALLOWED), name


def test_two_ranks_of_a_stage_differ_only_where_they_must() -> None:
    """In coordinates, groups, peers and slices: the functions are the same text."""
    files = emitted(EXAMPLES / "tiny_moe.plan")
    steps = [_functions(files[f"rank_{rank:03d}.py"]) for rank in range(8)]
    assert steps[0] == steps[1] == steps[2] == steps[3]
    assert steps[4] == steps[5] == steps[6] == steps[7]


@pytest.mark.sweep
def test_bytes_do_not_depend_on_the_order_of_hashes() -> None:
    plan = EXAMPLES / "sequence_parallel.plan"
    digest, order = _run(EMIT, str(plan), PYTHONHASHSEED="4242").split()
    assert digest == hashlib.sha256(repr(sorted(emitted(plan).items())).encode()).hexdigest()
    assert int(order) != hash("a")


def test_the_runtime_does_without_the_compiler() -> None:
    """Neither it nor its libraries, nor DTensor, which would bring sympy."""
    loaded = set(_run("import sys, moec.runtime, moec.runtime.train; print(*sys.modules)").split())
    unwanted = {"moec.compiler", "moec.dsl", "sympy", "lark", "jinja2", "rich", "torch.distributed.tensor"}
    assert loaded & unwanted == set()


def _functions(text: str) -> list[str]:
    return [ast.unparse(node) for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]


def _run(code: str, *arguments: str, **variables: str) -> str:
    environment = os.environ | variables
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()

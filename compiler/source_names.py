"""The names that the model's own source gives to values: what its assignments and parameters call them."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\n\s*(?P<code>[^\n]*)')


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of the model's source, on the way to an operator."""

    file: str
    line: int
    function: str
    code: str

    @property
    def shown(self) -> str:
        """As messages quote it."""
        return f"{self.file}:{self.line}: {self.code}"


@dataclass(frozen=True, slots=True)
class _Statement:
    """An assignment: the lines it spans and the names it binds."""

    first: int
    last: int
    names: tuple[str, ...]


def frames_of(stack_trace: str) -> tuple[Frame, ...]:
    """The frames of a traced operator, outermost first."""
    found = _FRAME.finditer(stack_trace)
    return tuple(Frame(m["file"], int(m["line"]), m["function"], m["code"].strip()) for m in found)


def labels_of(chains: Sequence[tuple[Frame, ...]]) -> list[tuple[str, ...]]:
    """For each operator of a straight-line graph, the names its result is bound to, or ().

    The last operator of a statement gives the statement's value; of nested statements the outermost names it.
    """
    labels: list[tuple[str, ...]] = []
    for place, chain in enumerate(chains):
        after = chains[place + 1] if place + 1 < len(chains) else ()
        labels.append(_label(chain, after))
    return labels


def parameter_of(chain: tuple[Frame, ...], depth: int) -> str:
    """The first parameter, after self, of the function that the frame at `depth` lies in; or ""."""
    if depth >= len(chain):
        return ""
    frame = chain[depth]
    return next((name for first, last, name in _functions(frame.file) if first <= frame.line <= last), "")


def same_function(one: tuple[Frame, ...], other: tuple[Frame, ...]) -> bool:
    """Do two frames lie in one function of one file?"""
    if not one or not other or one[0].file != other[0].file:
        return False
    spans = [[f for f in _functions(frame.file) if f[0] <= frame.line <= f[1]][:1] for frame in (one[0], other[0])]
    return spans[0] == spans[1]


def _label(chain: tuple[Frame, ...], after: tuple[Frame, ...]) -> tuple[str, ...]:
    for depth, frame in enumerate(chain):
        if after[: depth + 1] == chain[: depth + 1]:
            continue  # the statement goes on
        statement = _statement(frame)
        if statement is not None:
            return statement.names
        if not frame.code.startswith("return"):
            return ()
    return ()


def _statement(frame: Frame) -> _Statement | None:
    return next((s for s in _assignments(frame.file) if s.first <= frame.line <= s.last), None)


@cache
def _assignments(file: str) -> tuple[_Statement, ...]:
    found = []
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            names = _bound(node.targets[0])
            if names:
                found.append(_Statement(node.lineno, node.end_lineno or node.lineno, names))
    return tuple(sorted(found, key=lambda s: s.last - s.first))


@cache
def _functions(file: str) -> tuple[tuple[int, int, str], ...]:
    """First and last line and first parameter of every function, the innermost first."""
    found = []
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.FunctionDef):
            names = [argument.arg for argument in node.args.args if argument.arg != "self"]
            if names:
                found.append((node.lineno, node.end_lineno or node.lineno, names[0]))
    return tuple(sorted(found, key=lambda f: f[1] - f[0]))


@cache
def _tree(file: str) -> ast.Module:
    try:
        return ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def _bound(target: ast.expr) -> tuple[str, ...]:
    match target:
        case ast.Name(id=name):
            return (name,)
        case ast.Tuple(elts=parts):
            return tuple(part.id if isinstance(part, ast.Name) else "" for part in parts)
        case _:
            return ()

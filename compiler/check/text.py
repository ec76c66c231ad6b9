"""Holds the emitted text against a list of what it may say.

A file is parsed again, not searched: it may import torch, the runtime and the files beside it; call their functions,
its own, and methods of tensors; loop over layers and micro-batches. It has no conditions, so that no rank can go a way
of its own, and nothing that reaches out of what it is given: no other names, no private attributes, no strings that
become code.
"""

import ast
import importlib
import re
from collections.abc import Iterator
from types import BuiltinMethodType

import torch

from moec import runtime
from moec.compiler.check.execute import OPERANDS
from moec.compiler.check.faults import Fault
from moec.compiler.check.terms import Site
from moec.compiler.rules import MODULES

_BUILTINS = frozenset(("range", "reversed", "zip", "float"))
_OF_RUN = frozenset(
    "tape weights inputs tables seed add_loss send receive exchange count_valid reduce update job accumulate".split()
)
_OF_TAPE = frozenset(("run", "back", "keep", "kept"))
_OF_STAGE = frozenset("forward backward count reduce_gradients ACTIVATIONS_IN GRADIENTS_IN".split())
_LEFT_OUT = frozenset(
    "data grad backward numpy tolist item cpu cuda storage untyped_storage map apply set register_hook".split()
)
_OF_TENSOR = frozenset(
    name for name in dir(torch.Tensor) if name[0] != "_" and name[-1] != "_" and name not in _LEFT_OUT
)
_NODES = (
    *(ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Import, ast.ImportFrom, ast.alias, ast.Return, ast.Pass),
    *(ast.Assign, ast.Expr, ast.For, ast.Call, ast.keyword, ast.Attribute, ast.Name, ast.Constant, ast.Tuple, ast.List),
    *(ast.Dict, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Subscript, ast.Slice, ast.ListComp, ast.comprehension),
    *(ast.expr_context, ast.operator, ast.unaryop, ast.cmpop),
)


_WAYS = (ast.If, ast.IfExp, ast.While, ast.Match, ast.Try, ast.With, ast.Assert, ast.BoolOp)
"""Where ranks, or the same text at other sizes, may go another way: no run of small sizes speaks for that."""

_TALKS = re.compile(r"(\w+_)?(forward|backward)|count|reduce_gradients|step")
_TALKING = frozenset((*OPERANDS, "all_reduce_together"))


def check_text(file: str, text: str, first: int = 1) -> Iterator[Fault]:
    """What the file of a stage or of the sizes, or a rank's schedule from line `first` on, says beyond the list."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError) as fault:
        line = fault.lineno if isinstance(fault, SyntaxError) else 1
        yield Fault("text", f"this is no Python: {fault}", Site(file, first + (line or 1) - 1))
        return
    lines = text.splitlines()
    for name, number in _bound_twice(tree):
        yield Fault("text", f"binds `{name}` a second time", Site(file, first + number - 1, lines[number - 1].strip()))
    for node, said in (*_in_regions(tree), *_open_loops(tree)):
        yield Fault("text", said, Site(file, first + node.lineno - 1, lines[node.lineno - 1].strip()))
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        said = _said(node, defined)
        if said:
            number = getattr(node, "lineno", 1)
            yield Fault(
                "text",
                f"{said}, which no emitted program does",
                Site(file, first + number - 1, lines[number - 1].strip()),
                by_numbers=not isinstance(node, _WAYS),
            )


def _bound_twice(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names of a file that mean two things, and where they begin to mean the second."""
    known: set[str] = set()
    for node in tree.body:
        match node:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found = [name.asname or name.name.partition(".")[0] for name in names]
                found = [name for name in found if name != "torch" or name not in known]
            case ast.FunctionDef(name=name):
                found = [name]
            case ast.Assign(targets=targets):
                found = [target.id for target in targets if isinstance(target, ast.Name)]
            case _:
                found = []
        yield from ((name, node.lineno) for name in found if name in known)
        known.update(found)


def _in_regions(tree: ast.Module) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    """What functions that a tape runs do and must not: talk to other ranks, or loop as often as data says."""
    for function in tree.body:
        if not isinstance(function, ast.FunctionDef) or _TALKS.fullmatch(function.name):
            continue
        for node in ast.walk(function):
            match node:
                case ast.Call(func=ast.Name(id=name)) if name in _TALKING:
                    yield node, f"`{function.name}` is a region, and calls {name}: regions do not talk"
                case ast.For() | ast.ListComp():
                    yield node, f"`{function.name}` is a region, and loops: regions are straight lines"


def _open_loops(tree: ast.Module) -> Iterator[tuple[ast.expr, str]]:
    """Ranges whose length is more than numbers, sizes and the count of micro-batches."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
            known = (ast.Constant, ast.BinOp, ast.operator, ast.expr_context)
            parts = [part for arg in node.args for part in ast.walk(arg) if not isinstance(part, known)]
            names = {".".join(_chain(part)) for part in parts if isinstance(part, ast.Name | ast.Attribute)}
            sizes = all(name.isupper() or name in ("run", "run.job", "run.job.accumulate") for name in names)
            if not sizes or any(not isinstance(part, ast.Name | ast.Attribute) for part in parts):
                yield node, "loops as often as data says, which no emitted program does"


def _said(node: ast.AST, defined: set[str]) -> str:
    """What is wrong with one node, "" if nothing is."""
    match node:
        case _ if not isinstance(node, _NODES):
            return f"has {_name_of(node)}"
        case ast.FunctionDef(decorator_list=[_, *_]) | ast.arguments(defaults=[_, *_]):
            return "has a decorator or a default"
        case ast.Import(names=names):
            return _imports([name.name for name in names])
        case ast.ImportFrom(module=module, names=names, level=level):
            if level or module not in ("sizes", "moec.runtime"):
                return f"imports from {module}"
            known = [name.name for name in names if module == "sizes" or _of_runtime(name.name)]
            return "" if len(known) == len(names) else "imports what the runtime does not offer"
        case ast.Call(func=ast.Name(id=name)):
            own = name in defined or name in _BUILTINS or _of_runtime(name)
            return "" if own else f"calls `{name}`"
        case ast.Call(func=func):
            return "" if isinstance(func, ast.Attribute) else "calls what is no name"
        case ast.Attribute(value=value, attr=attribute):
            return _attribute(value, attribute)
        case ast.Name(id=name) if name.startswith("__"):
            return f"names `{name}`"
        case _:
            return ""


def _attribute(value: ast.expr, name: str) -> str:
    chain = _chain(value)
    root = chain[0] if chain else ""
    allowed = name in _OF_TENSOR
    if name.startswith("_"):
        allowed = False
    elif chain == ["run"]:
        allowed = name in _OF_RUN
    elif chain == ["tape"]:
        allowed = name in _OF_TAPE
    elif chain == ["stage"]:
        allowed = name in _OF_STAGE
    elif root == "torch":
        allowed = [*chain, name][:3] == ["torch", "ops", "aten"][: len(chain) + 1] or (
            chain == ["torch"] and _of_torch(name)
        )
    elif chain == ["F"]:
        allowed = hasattr(torch.nn.functional, name)
    elif len(chain) == 1 and root in MODULES:
        allowed = hasattr(importlib.import_module(f"moec.runtime.{root}"), name)
    elif len(chain) == 1 and re.fullmatch(r"w(_\d+)?", root):
        allowed = True  # a weight by its key
    elif chain == ["run", "job"]:
        allowed = name == "accumulate"
    return "" if allowed else f"uses `{'.'.join(chain) or 'a value'}.{name}`"


def _chain(value: ast.expr) -> list[str]:
    """`torch.ops.aten` as its names; nothing of what is no chain of names."""
    if isinstance(value, ast.Name):
        return [value.id]
    inner = _chain(value.value) if isinstance(value, ast.Attribute) else []
    return [*inner, value.attr] if inner and isinstance(value, ast.Attribute) else []


def _of_torch(name: str) -> bool:
    """Of tensors: what torch's C++ gives, and what torch.functional wraps; not what reads files or changes settings."""
    found = getattr(torch, name, None)
    if isinstance(found, torch.dtype):
        return True
    of_tensors = isinstance(found, BuiltinMethodType) and found.__self__ is None
    return name != "from_file" and (of_tensors or hasattr(torch.functional, name))


def _imports(names: list[str]) -> str:
    outside = [
        name
        for name in names
        if name not in ("torch", "torch.nn.functional") and not (name.startswith("stage_") and name[6:].isdigit())
    ]
    return f"imports {outside[0]}" if outside else ""


def _of_runtime(name: str) -> bool:
    return name in runtime.__all__ or name in MODULES


def _name_of(node: ast.AST) -> str:
    return {"If": "a condition", "IfExp": "a condition", "While": "a loop without end"}.get(
        type(node).__name__, f"`{type(node).__name__.lower()}`"
    )
